"""The worked example of packet.md is the packet that it says."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mfd.packet import (
    Assembly,
    Encoding,
    Envelope,
    Fault,
    Packet,
    PacketError,
    Piece,
    PieceKind,
    decode,
    encode,
    head_of,
    pieces_of,
)
from mfd.packet.packet import pack_head
from tests.packet.bodies import AFTER

FOLDER = Path(__file__).parents[2] / "spec"
LINE = re.compile(r"    ( *\d+|    )  (\S.*?)(  .*)?")


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("example", FOLDER / "vectors/make_example.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_the_bytes_of_the_packet() -> None:
    """What stands there is read as a person would, and is a packet."""
    make = load()
    document = (FOLDER / "packet.md").read_text()
    assert make.placed(document) == document, "run python spec/vectors/make_example.py"
    shown = document.split(make.BEGIN)[1].split(make.END)[0]
    body = bytearray()
    for line in filter(str.strip, shown.splitlines()):
        match = LINE.fullmatch(line)
        assert match is not None, line
        if match[1].strip():
            assert int(match[1]) == len(body)
        for word in match[2].split(" "):
            digits, _, count = word.partition("*")
            body += bytes.fromhex(digits) * int(count or 1)
    assert bytes(body) == b"".join(encode(make.example(), Encoding.RAW))
    packet = decode(bytes(body))
    packet.check()
    assert packet.layer(0)["w"].array().tolist() == [1, 2, 3]
    assert "#17-a-worked-example" in document.split("## 1. ")[0]


@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.PLANES])
def test_a_base_that_is_not_needed_must_be_held_in_a_packet_and_is_ignored_in_a_piece(
    encoding: Encoding,
) -> None:
    """Rules: P-63, P-91"""
    nobody = bytes([7]) * 32
    data = b"".join(encode(AFTER, encoding))
    plain = decode(data)
    assert {entry.base for entry in plain.envelope.index} == {None}
    named = tuple(replace(entry, base=nobody) for entry in plain.envelope.index)
    body = pack_head(plain, Envelope(index=named)) + data[len(pack_head(plain, plain.envelope)) :]
    with pytest.raises(PacketError) as caught:
        decode(body)
    assert caught.value.fault is Fault.BASE
    decode(body, held={nobody: b"\0" * 64}).check()

    made = Assembly(decode(head_of(plain)))
    for piece in pieces_of(plain, encoding):
        chunk = piece.kind is PieceKind.CHUNK
        made.add(Piece(**_fields(piece, base=nobody if chunk else None)))
    assert not list(made.missing())
    whole: Packet = made.packet()
    whole.check()
    assert whole.objects.keys() == AFTER.objects.keys()


def _fields(piece: Piece, **changed: object) -> dict[str, object]:
    names = ("kind", "object", "raw_bytes", "index", "body", "encoding")
    return {**{name: getattr(piece, name) for name in names}, **changed}
