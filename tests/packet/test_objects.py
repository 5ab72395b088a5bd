from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Fault,
    PacketError,
    Tensor,
    chunk_digest,
    chunk_root,
    chunks_of,
    object_digest,
    pack_layer,
    unpack_layer,
    wrap_object,
)
from mfd.packet.objects import read_table
from tests.packet import reference
from tests.packet.values import LAYERS, address

MIB = 1 << 20


@given(LAYERS)
def test_round_trip(layer: dict[str, Tensor]) -> None:
    """Rules: P-02, P-03, P-04"""
    packed = pack_layer(layer)
    raw = packed.tobytes()
    assert len(raw) == packed.raw_bytes
    assert len(raw) % 64 == 0
    assert packed.digest == object_digest(raw) == reference.digest(raw)
    tensors = unpack_layer(raw)
    assert list(tensors) == sorted(layer)
    for name, tensor in tensors.items():
        assert tensor == layer[name]
        assert not tensor.data or (address(tensor.data) - address(memoryview(raw))) % 64 == 0
        tensor.array()
    assert reference.layer(raw) == {
        n: [t.dtype, list(t.shape), t.data.hex()] for n, t in tensors.items()
    }


@given(LAYERS, st.randoms())
def test_the_order_of_tensors_does_not_matter(layer: dict[str, Tensor], dice: object) -> None:
    """Rules: P-02"""
    items = list(layer.items())
    dice.shuffle(items)  # type: ignore[attr-defined]
    assert pack_layer(dict(items)).digest == pack_layer(layer).digest


@given(LAYERS)
def test_every_prefix_is_refused(layer: dict[str, Tensor]) -> None:
    """Rules: P-03, P-70"""
    raw = pack_layer(layer).tobytes()
    for size in range(len(raw)):
        with pytest.raises(PacketError):
            unpack_layer(raw[:size])


@given(LAYERS, st.data())
def test_any_change_is_refused_or_read(layer: dict[str, Tensor], data: st.DataObject) -> None:
    """Rules: P-70"""
    raw = bytearray(pack_layer(layer).tobytes())
    raw[data.draw(st.integers(0, min(len(raw), 256) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        tensors = unpack_layer(raw)
    except PacketError:
        return
    assert pack_layer(tensors).tobytes() == raw


def test_tensors_are_neither_copied_in_nor_out() -> None:
    array = np.arange(1000, dtype="<f4")
    packed = pack_layer({"a": array})
    assert address(memoryview(packed.parts[1])) == array.__array_interface__["data"][0]
    raw = memoryview(packed.tobytes())
    assert address(unpack_layer(raw)["a"].data) == address(raw) + len(packed.parts[0])


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 2 * MIB + 7])
def test_digest(size: int) -> None:
    """Rules: P-01"""
    raw = np.resize(np.arange(251, dtype=np.uint8), size).tobytes()
    pieces = [raw[at : at + MIB] for at in range(0, size, MIB)]
    hashes = [blake3(piece).digest() for piece in pieces]
    whole = wrap_object(raw[: size // 3], raw[size // 3 : size // 2], raw[size // 2 :])
    assert whole.chunks == tuple(hashes) == tuple(chunk_digest(piece) for piece in pieces)
    assert whole.digest == chunk_root(size, hashes) == object_digest(raw) == reference.digest(raw)
    assert [bytes(chunk) for chunk in chunks_of(whole.parts)] == pieces


@pytest.mark.parametrize(
    ("layer", "error"),
    [
        ({"": np.zeros(1)}, "1 to 512 bytes"),
        ({"x" * 513: np.zeros(1)}, "1 to 512 bytes"),
        ({"x": Tensor("u8", (1,) * 17, memoryview(b"a"))}, "rank 17"),
    ],
)
def test_the_writer_refuses_what_no_reader_takes(layer: dict[str, Tensor], error: str) -> None:
    """Rules: P-05"""
    with pytest.raises(ValueError, match=error):
        pack_layer(layer)


def test_lengths_that_lie_take_no_memory() -> None:
    """Rules: P-05"""
    bodies = [
        b"\xdd\x00\x01\x00\x00",  # 65,536 rows
        b"\xdd\x00\x01\x00\x00" + b"\xdd\x00\x01\x86\xa0" * 1000,  # and 100,000 in each
        b"\x91\x93\xa1a\xa2u8\x91\xcf\x00\x00\x01\x00\x00\x00\x00\x00",  # a tensor of 1 TiB
    ]
    tracemalloc.start()
    for body in bodies:
        raw = len(body).to_bytes(4, "little") + bytes(4) + body
        with pytest.raises(PacketError) as caught:
            unpack_layer(raw + bytes(-len(raw) % 64))
        assert caught.value.fault in (Fault.MSGPACK, Fault.TRUNCATED)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"\xdc\x04\x00" + b"\x90" * 1024, Fault.FIELD),  # lists in place of three cells
        (b"\x93\xdc\x04\x00" + b"\x90" * 1026, Fault.FIELD),  # ... of a name
        (b"\x93\xa1a\xa2u8\xdc\x04\x00" + b"\x90" * 1024, Fault.LIMIT),  # ... of extents
    ],
)
def test_a_table_full_of_lists_makes_none_of_them(row: bytes, fault: Fault) -> None:
    """Rules: P-05"""
    rows = (4 << 20) // len(row)
    body = b"\xdd" + rows.to_bytes(4, "big") + row * rows
    raw = len(body).to_bytes(4, "little") + bytes(4) + body
    raw += bytes(-len(raw) % 64)
    tracemalloc.start()
    with pytest.raises(PacketError) as caught:
        read_table(raw)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert caught.value.fault is fault
    assert peak < 16 << 20  # the table and the copy that msgpack reads, not 64 bytes a list
