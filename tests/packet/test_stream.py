"""Packets that never are in memory as a whole."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Encoding,
    Fault,
    Head,
    Packet,
    PacketError,
    RawChunk,
    StreamDecoder,
    decode,
    encode,
    encode_stream,
    read_stream,
)
from tests.packet.bodies import AFTER, BEFORE, MIB, NEW, same
from tests.packet.keys import HashSigner, verify_hash

DATA = b"".join(encode(AFTER, Encoding.PLANES))


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("base", [None, BEFORE], ids=["alone", "based"])
def test_the_bytes_are_those_of_encode(encoding: Encoding, base: Packet | None) -> None:
    lazy = Packet.from_tensors({n: loader(t) for n, t in NEW.items()}, seq=2)
    assert lazy.manifest_bytes == AFTER.manifest_bytes
    whole = b"".join(encode(AFTER, encoding, base=base))
    for packet in (AFTER, lazy):
        assert b"".join(encode_stream(packet, encoding, base=base)) == whole
        assert b"".join(encode(packet, encoding, base=base)) == whole
    assert max(len(part) for part in encode_stream(lazy, encoding, base=base)) <= MIB


def loader(tensors: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: tensors


def test_a_layer_that_changes_meanwhile_is_found_out() -> None:
    calls = iter(range(9))
    packet = Packet.from_tensors({"a": lambda: {"w": NEW["block0"]["weight"] * next(calls)}})
    with pytest.raises(ValueError, match="a layer changed between two calls"):
        list(encode_stream(packet))


@given(st.lists(st.integers(1, 3 * MIB), max_size=12))
def test_cut_anywhere(sizes: list[int]) -> None:
    """Rules: P-51, P-60, P-62"""
    decoder = StreamDecoder()
    found: list[Head | RawChunk] = []
    at = 0
    for size in [*sizes, len(DATA)]:
        found += decoder.feed(DATA[at : at + size])
        at += size
    decoder.close()
    head, *chunks = found
    assert isinstance(head, Head)
    assert head.manifest == AFTER.manifest
    raw: dict[bytes, bytes] = {}
    for chunk in chunks:
        assert isinstance(chunk, RawChunk)
        assert chunk.index * MIB == len(raw.setdefault(chunk.object, b""))
        raw[chunk.object] += bytes(chunk.raw)
    assert same(Packet(head.manifest, head.manifest_bytes, b"", decode_all(raw)), NEW)


def decode_all(raw: dict[bytes, bytes]) -> Any:
    from mfd.packet import wrap_object

    return {digest: wrap_object(body) for digest, body in raw.items()}


def test_differences_are_read_as_they_come() -> None:
    """Rules: P-48, P-63"""
    data = b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE))
    found = list(read_stream(io.BytesIO(data).read, held=BEFORE))
    assert len(found) == 7
    with pytest.raises(PacketError) as caught:
        list(read_stream(io.BytesIO(data).read))
    assert caught.value.fault is Fault.BASE


def test_nothing_is_believed_before_the_signature() -> None:
    """Rules: P-52"""
    signed = b"".join(encode(Packet.from_tensors(NEW, signer=HashSigner("alice"))))
    first = next(iter(read_stream(io.BytesIO(signed).read, verify_hash)))
    assert isinstance(first, Head)
    with pytest.raises(PacketError) as caught:
        StreamDecoder(verify_hash).feed(DATA)
    assert caught.value.fault is Fault.SIGNATURE


SMALL = b"".join(encode(Packet.from_tensors({"a": {"w": NEW["block0"]["bias"]}}), Encoding.RAW))


@given(st.data())
def test_it_refuses_what_decode_refuses(data: st.DataObject) -> None:
    """Rules: P-50, P-51, P-60, P-61, P-62, P-70"""
    body = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 2))):
        body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    body = body[: len(body) - data.draw(st.sampled_from([0, 0, 1, 64, 1000, 5000]))]
    body += bytes(data.draw(st.sampled_from([0, 0, 0, 1, 64])))
    raised = []
    for read in (whole, streamed):
        try:
            read(bytes(body))
        except PacketError:
            raised.append(True)
        else:
            raised.append(False)
    assert raised[0] == raised[1]


def whole(body: bytes) -> None:
    decode(body).check()


def streamed(body: bytes) -> None:
    list(read_stream(io.BytesIO(body).read))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.TRUNCATED),
        (b"\x93MF", Fault.TRUNCATED),
        (b"PK", Fault.MAGIC),
        (SMALL[:-1], Fault.TRUNCATED),
        (SMALL + b"\0", Fault.TRAILING),
    ],
)
def test_ends(body: bytes, fault: Fault) -> None:
    """Rules: P-50, P-51"""
    decoder = StreamDecoder()
    with pytest.raises(PacketError) as caught:
        decoder.feed(body), decoder.close()
    assert caught.value.fault is fault
    with pytest.raises(PacketError) as again:
        decoder.feed(b"more")
    assert again.value.fault is fault
    with pytest.raises(PacketError):
        decoder.close()


MODEL = """
import resource, sys, threading, os, io
import numpy as np
from mfd.packet import Encoding, Packet, encode_stream, read_stream
MIB = 1 << 20
dice = np.random.default_rng(1)
once = np.concatenate([dice.normal(0, 0.02, MIB // 4).astype("<f4") for _ in range(16)])
def load(i):
    return lambda: {"w": once * np.float32(1 + i / 7)}
packet = Packet.from_tensors({f"layer{i}": load(i) for i in range(24)})
read, write = os.pipe()
def send():
    with open(write, "wb") as out:
        for part in encode_stream(packet, Encoding.PLANES):
            out.write(part)
thread = threading.Thread(target=send)
def high():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) >> 10
before = high()
thread.start()
chunks = sum(1 for _ in read_stream(open(read, "rb").read)) - 1
thread.join()
print(chunks, high() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_model_of_384_mib_passes_in_less_than_one_of_its_layers() -> None:
    """Out through a pipe and in again, in one process that makes one layer of 16 MiB at a time."""
    done = subprocess.run(
        [sys.executable, "-c", MODEL], capture_output=True, text=True, check=True, timeout=100
    )
    chunks, grown = map(int, done.stdout.split())
    assert chunks == 24 * 17  # the table takes the sixteen chunks of a layer into a seventeenth
    assert grown < 64
