"""Safetensors files: what the original library writes is read, what is written it reads."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    DTYPES,
    Fault,
    PacketError,
    Tensor,
    map_safetensors,
    pack_layer,
    read_safetensors,
    unpack_layer,
    write_safetensors,
)
from mfd.packet.safetensors import FOREIGN, THEIRS
from tests.packet.values import LAYERS, address

Rows = list[tuple[str, Any]]


def file_of(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def row(dtype: str, shape: list[int], first: int, last: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, last]}


GOOD = {"b": row("F32", [2], 4, 12), "a": row("U8", [2, 2], 0, 4)}


@given(tensors=LAYERS)
def test_what_is_written_is_read(tensors: dict[str, Tensor]) -> None:
    if any(tensor.dtype in FOREIGN for tensor in tensors.values()):
        with pytest.raises(ValueError, match=r"save as \.mfd"):
            write_safetensors(tensors)
        return
    body = b"".join(write_safetensors(tensors, {"a": "b"}))
    found = read_safetensors(body)
    assert found.tensors == tensors
    assert found.metadata == {"a": "b"}
    for tensor in found.tensors.values():  # aligned to its own width
        width = DTYPES[tensor.dtype][0]
        assert (address(tensor.data) - address(memoryview(body))) % min(width, 8) == 0
    assert unpack_layer(pack_layer(found.tensors).tobytes()) == tensors


def test_the_original_library_agrees(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    library = pytest.importorskip("safetensors.torch")
    known = {name.removeprefix("torch."): kind for kind, name in _their_types(library).items()}
    tensors: dict[str, Any] = {}
    for ours, (width, _) in DTYPES.items():
        if ours not in FOREIGN:
            data = bytes(1 if ours == "bool" else i for i in range(6 * width))
            tensors[ours] = Tensor(ours, (2, 3), memoryview(data))
    common = {n: t for n, t in tensors.items() if THEIRS[n] in known.values()}
    assert len(common) >= 15
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"".join(write_safetensors(common, {"format": "pt"})))
    theirs = library.load_file(str(path))
    for name, tensor in common.items():
        assert torch.equal(theirs[name].view(torch.uint8), tensor.torch().view(torch.uint8))
    library.save_file(theirs, str(path), metadata={"who": "they"})
    found = map_safetensors(path)
    assert found.tensors == common
    assert found.metadata == {"who": "they"}


def _their_types(library: Any) -> dict[str, str]:
    return {kind: str(dtype) for kind, dtype in library._TYPES.items()}


def test_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"".join(write_safetensors({"w": np.arange(9, dtype="<f4")})))
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    tensor = read_safetensors(mapped).tensors["w"]
    offset = path.stat().st_size - 36
    assert address(tensor.data) == address(memoryview(mapped)) + offset
    assert tensor.data.readonly
    assert map_safetensors(path).tensors == {"w": tensor}


def test_writing_copies_nothing() -> None:
    array = np.arange(9, dtype="<f4")
    parts = write_safetensors({"w": array})
    assert address(memoryview(parts[2])) == array.__array_interface__["data"][0]


def test_order_in_the_file_is_that_of_the_offsets() -> None:
    found = read_safetensors(file_of(GOOD, bytes(12)))
    assert list(found.tensors) == ["a", "b"]
    assert found.metadata == {}


DEEP = b"[" * 100_000
BAD: list[tuple[str, bytes, Fault]] = [
    ("nothing", b"", Fault.TRUNCATED),
    ("half a length", bytes(7), Fault.TRUNCATED),
    ("no header", (9).to_bytes(8, "little"), Fault.TRUNCATED),
    ("a long header", (2**20 + 1).to_bytes(8, "little") + bytes(2**20 + 1), Fault.LIMIT),
    ("a huge header", b"\xff" * 8, Fault.LIMIT),
    ("no JSON", file_of(b"{"), Fault.FIELD),
    ("no text", file_of(b'{"\xff": 1}'), Fault.FIELD),
    ("a deep header", file_of(DEEP), Fault.FIELD),
    ("a long number", file_of(b'{"a": ' + b"9" * 9999 + b"}"), Fault.FIELD),
    ("a list", file_of([]), Fault.FIELD),
    ("a name twice", file_of(b'{"a": 1, "a": 1}'), Fault.ORDER),
    ("metadata of numbers", file_of({"__metadata__": {"a": 1}}), Fault.FIELD),
    ("metadata of a list", file_of({"__metadata__": []}), Fault.FIELD),
    ("a name of nothing", file_of({"": row("U8", [0], 0, 0)}), Fault.LIMIT),
    ("a name too long", file_of({"n" * 513: row("U8", [0], 0, 0)}), Fault.LIMIT),
    ("half a character", file_of({"\ud800": row("U8", [0], 0, 0)}), Fault.FIELD),
    ("a row of text", file_of({"a": "U8"}), Fault.FIELD),
    ("a field too many", file_of({"a": {**row("U8", [0], 0, 0), "x": 1}}), Fault.FIELD),
    ("a field too few", file_of({"a": {"dtype": "U8", "shape": [0]}}), Fault.FIELD),
    ("an unknown type", file_of({"a": row("U9", [0], 0, 0)}), Fault.DTYPE),
    ("a type of our own", file_of({"a": row("C128", [0], 0, 0)}), Fault.DTYPE),
    ("a type that is a list", file_of({"a": {**row("U8", [0], 0, 0), "dtype": []}}), Fault.DTYPE),
    ("an extent below 0", file_of({"a": row("U8", [-1, -4], 0, 4)}, bytes(4)), Fault.SHAPE),
    ("an extent of 2^41", file_of({"a": row("U8", [2**41, 0], 0, 0)}), Fault.SHAPE),
    ("an extent of 1.0", file_of({"a": {**row("U8", [], 0, 1), "shape": [1.0]}}), Fault.SHAPE),
    ("an extent of true", file_of({"a": {**row("U8", [], 0, 1), "shape": [True]}}), Fault.SHAPE),
    ("17 extents", file_of({"a": row("U8", [1] * 17, 0, 1)}, b"a"), Fault.LIMIT),
    ("offsets of text", file_of({"a": {**row("U8", [], 0, 1), "data_offsets": "01"}}), Fault.SHAPE),
    ("one offset", file_of({"a": {**row("U8", [], 0, 1), "data_offsets": [0]}}), Fault.SHAPE),
    ("offsets backwards", file_of({"a": row("U8", [1], 1, 0)}, b"a"), Fault.SHAPE),
    ("another size", file_of({"a": row("F32", [2], 0, 4)}, bytes(4)), Fault.SHAPE),
    ("a product of 2^80", file_of({"a": row("U8", [2**40, 2**40], 0, 0)}), Fault.SHAPE),
    ("a gap in front", file_of({"a": row("U8", [1], 1, 2)}, b"aa"), Fault.ORDER),
    ("a gap", file_of({**GOOD, "b": row("F32", [2], 5, 13)}, bytes(13)), Fault.ORDER),
    ("an overlap", file_of({**GOOD, "b": row("F32", [2], 3, 11)}, bytes(11)), Fault.ORDER),
    ("the same place", file_of({**GOOD, "c": row("U8", [4], 0, 4)}, bytes(12)), Fault.ORDER),
    ("a missing byte", file_of(GOOD, bytes(11)), Fault.TRUNCATED),
    ("a byte too many", file_of(GOOD, bytes(13)), Fault.TRAILING),
]


@pytest.mark.parametrize(("about", "body", "fault"), BAD, ids=[about for about, _, _ in BAD])
def test_what_is_not_sound_is_refused(
    about: str, body: bytes, fault: Fault, tmp_path: Path
) -> None:
    with pytest.raises(PacketError) as caught:
        read_safetensors(body)
    assert caught.value.fault is fault
    (tmp_path / "bad").write_bytes(body)
    with pytest.raises(PacketError) as caught:
        map_safetensors(tmp_path / "bad")
    assert caught.value.fault is fault


@given(at=st.integers(0, 200), patch=st.binary(min_size=1, max_size=4), cut=st.integers(0, 200))
def test_any_bytes_give_tensors_or_one_error(at: int, patch: bytes, cut: int) -> None:
    body = bytearray(file_of(GOOD, bytes(12)))
    body[at : at + len(patch)] = patch
    for found in (bytes(body), bytes(body[:cut])):
        try:
            tensors = read_safetensors(found).tensors
        except PacketError:
            continue
        for tensor in tensors.values():
            assert tensor.array().nbytes == len(tensor.data)


def test_empty_tensors_share_a_place() -> None:
    rows = {"a": row("F32", [0, 3], 0, 0), "b": row("U8", [1], 0, 1), "c": row("I8", [0], 0, 0)}
    found = read_safetensors(file_of(rows, b"x")).tensors
    assert found["a"].shape == (0, 3)
    assert bytes(found["b"].data) == b"x"
    assert found["c"].shape == (0,)


@pytest.mark.parametrize("name", ["", "__metadata__", "n" * 513])
def test_names_that_no_reader_takes_are_not_written(name: str) -> None:
    with pytest.raises(ValueError, match="cannot name"):
        write_safetensors({name: np.zeros(1)})


def test_a_header_that_no_reader_takes_is_not_written() -> None:
    zero = Tensor.of(np.zeros(1, "u1"))
    with pytest.raises(ValueError, match=r"save as \.mfd"):
        write_safetensors({"n" * 500 + str(i): zero for i in range(2000)})
