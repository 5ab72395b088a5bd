"""Compact forms: what was committed in blocks, and what changed in few places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Encoding,
    LayerObject,
    PacketError,
    Tensor,
    chunks_of,
    commit,
    decode_chunk,
    encode_chunk,
    pack_layer,
)
from mfd.packet.layout import BLOCK, RUNS_MAX, Items, Layout, Run
from tests.packet import reference

MIB = 1 << 20
DICE = np.random.default_rng(5)
WAYS = {
    "int8": Encoding.INT8,
    "int4": Encoding.INT4,
    "delta-int8": Encoding.INT8,
    "delta-int4": Encoding.INT4,
    "delta-sign": Encoding.SIGN,
    "top-k": Encoding.SPARSE,
}


def model(scale: float = 0.02) -> dict[str, Any]:
    """About 2.2 MiB: tensors that chunks cut within blocks, short ones, and some of other types."""
    return {
        "a.bias": DICE.normal(0, scale, 100).astype("<f4"),
        "a.weight": DICE.normal(0, scale, (333, 777)).astype("<f4"),
        "b.steps": np.arange(7),
        "b.weight": DICE.normal(0, scale, 300_001).astype("<f4"),
    }


OLD = model()
NEW = {
    k: (v + DICE.normal(0, 2e-5, v.shape)).astype(v.dtype) if v.dtype == "f4" else v
    for k, v in OLD.items()
}
BASE = pack_layer(OLD).tobytes()


def there_and_back(
    layer: LayerObject, encoding: Encoding, base: bytes | None
) -> Iterator[tuple[Encoding, int, int]]:
    """Encode and decode every chunk; yield what was used, encoded bytes, raw bytes."""
    layout = Layout(layer.parts[0], layer.raw_bytes)
    for index, raw in enumerate(chunks_of(layer.parts)):
        items = layout.chunk(index)
        under = None if base is None else base[index * MIB : (index + 1) * MIB]
        used, body = encode_chunk(
            raw,
            item_bytes=items.width,
            encoding=encoding,
            base=under,
            floats=items.floats,
            runs=items.runs,
        )
        assert bytes(decode_chunk(used, body, raw_bytes=len(raw), base=under)) == bytes(raw)
        yield used, len(body), len(raw)


@pytest.mark.parametrize(
    ("way", "share"),
    [
        # int8: a byte and 1/32 an element before the codes are coded; int4: half a byte and 1/32.
        ("int8", 0.25),
        ("int4", 0.12),
        ("delta-int8", 0.25),
        ("delta-int4", 0.12),
        ("delta-sign", 0.04),  # a bit and an eighth of one; the exponents have few values
        ("top-k", 0.02),  # one element in 64: a byte of gap, 3 of difference
    ],
)
def test_what_was_committed_is_compact(way: str, share: float) -> None:
    """Rules: P-80, P-81, P-82, P-83, P-84, P-309"""
    based = way in ("delta-int8", "delta-int4", "delta-sign", "top-k")
    done = commit(NEW, way, base=OLD if based else None)
    found = list(there_and_back(pack_layer(done.tensors), WAYS[way], BASE if based else None))
    assert {used for used, _, _ in found} == {WAYS[way]}
    assert sum(size for _, size, _ in found) < share * sum(raw for _, _, raw in found)


@pytest.mark.parametrize("dtype", ["f16", "bf16"])
@pytest.mark.parametrize("way", ["int8", "int4"])
def test_halves_are_compact_too(way: str, dtype: str) -> None:
    """Rules: P-81, P-83"""
    values = DICE.normal(0, 0.02, 300_000).astype("<f4")
    half: Any = values.astype("<f2")
    if dtype == "bf16":
        bits = (values.view("<u4") >> 16).astype("<u2")
        half = Tensor("bf16", bits.shape, memoryview(bits).cast("B"))
    done = commit({"w": half, "v": np.ones(9, "<f4")}, way)
    found = list(there_and_back(pack_layer(done.tensors), WAYS[way], None))
    assert {used for used, _, _ in found} == {WAYS[way]}
    share = sum(size for _, size, _ in found) / sum(raw for _, _, raw in found)
    assert share < (0.55 if way == "int8" else 0.3)


@pytest.mark.parametrize("encoding", [Encoding.INT8, Encoding.INT4, Encoding.SIGN])
def test_what_was_not_committed_gives_way(encoding: Encoding) -> None:
    """To a delta where there is a base, else to planes."""
    layer = pack_layer(NEW)
    assert {used for used, _, _ in there_and_back(layer, encoding, None)} == {Encoding.PLANES}
    assert {used for used, _, _ in there_and_back(layer, encoding, BASE)} == {Encoding.DELTA}


def test_one_wrong_bit_is_not_lost() -> None:
    """A run that does not come back to the bit stays as it is; the other is compact."""
    values = {"a": OLD["b.weight"][:640], "b": OLD["b.weight"][640:9_600]}
    done = commit(values, "int8").tensors
    bits = done["a"].array().view("<u4").copy()
    bits[5] ^= 1
    sound = list(there_and_back(pack_layer(done), Encoding.INT8, None))
    ((used, size, _),) = there_and_back(
        pack_layer({**done, "a": bits.view("<f4")}), Encoding.INT8, None
    )
    assert used is Encoding.INT8
    assert size - sound[0][1] > 640 * 2.5  # 4 bytes an element instead of about one


def test_minus_zero_and_numbers_that_are_none_give_way() -> None:
    for strange in (np.float32(-0.0), np.float32(np.inf), np.float32(np.nan)):
        values = np.full(640, strange, "<f4")
        runs = (Run(0, "f32", 640),)
        for encoding in (Encoding.INT8, Encoding.INT4):
            used, body = encode_chunk(values.data, item_bytes=4, encoding=encoding, runs=runs)
            assert used is Encoding.PLANES
            assert bytes(decode_chunk(used, body, raw_bytes=2560)) == values.tobytes()


@given(st.data())
def test_any_blocks_come_back(data: st.DataObject) -> None:
    """Runs anywhere, values of a grid or not: the encoder may refuse a form, never lose a bit.

    Rules: P-80, P-81, P-82, P-83
    """
    size = data.draw(st.integers(64, 300))
    encoding = data.draw(st.sampled_from([Encoding.INT8, Encoding.INT4, Encoding.SIGN]))
    dice = np.random.default_rng(data.draw(st.integers(0, 99)))
    base = dice.normal(0, 1, size).astype("<f4")
    way = {Encoding.INT8: "int8", Encoding.INT4: "int4", Encoding.SIGN: "delta-sign"}[encoding]
    based = encoding is Encoding.SIGN or data.draw(st.booleans())
    name = way if way.startswith("delta") or not based else "delta-" + way
    wanted = (base * dice.uniform(0, 2)).astype("<f4")
    values = commit({"w": wanted}, name, base={"w": base} if based else None).tensors["w"].array()
    front, back = data.draw(st.sampled_from([0, 4, 64])), data.draw(st.integers(0, 9))
    raw = bytes(range(front)) + values.tobytes() + bytes(range(back))
    under = bytes(front) + base.tobytes() if based else None
    runs = (Run(front, "f32", size),)
    used, body = encode_chunk(raw, item_bytes=4, encoding=encoding, base=under, runs=runs)
    assert bytes(decode_chunk(used, body, raw_bytes=len(raw), base=under)) == raw
    assert reference.chunk(used, bytes(body), len(raw), under or b"") == raw
    assert used is encoding or len(raw) < 600


@given(st.integers(1, 8), st.integers(0, 2_000), st.integers(0, 40), st.integers(0, 99))
def test_few_changes_come_back(width: int, size: int, changes: int, seed: int) -> None:
    """Rules: P-84"""
    width = 1 << width % 4
    dice = np.random.default_rng(seed)
    base = dice.integers(0, 256, size + width, np.uint8)
    raw = base.copy()
    for place in dice.integers(0, len(raw), changes):
        raw[place] ^= dice.integers(1, 256)
    used, body = encode_chunk(
        raw.data, item_bytes=width, encoding=Encoding.SPARSE, base=base.data, floats=seed % 2 == 0
    )
    assert bytes(decode_chunk(used, body, raw_bytes=len(raw), base=base.data)) == raw.tobytes()
    assert reference.chunk(used, bytes(body), len(raw), base.tobytes()) == raw.tobytes()


FORMS = [Encoding.INT8, Encoding.INT4, Encoding.SIGN, Encoding.SPARSE]


@given(st.data(), st.sampled_from(FORMS))
def test_any_change_gives_the_size_or_an_error(data: st.DataObject, encoding: Encoding) -> None:
    """Rules: P-40, P-70"""
    way = next(way for way, found in WAYS.items() if found is encoding)
    old, new = {"w": OLD["b.weight"][:900]}, {"w": NEW["b.weight"][:900]}
    based = encoding in (Encoding.SIGN, Encoding.SPARSE)
    raw = commit(new, way, base=old if based else None).tensors["w"].data
    base = old["w"].tobytes()
    runs = (Run(0, "f32", 900),)
    used, found = encode_chunk(raw, item_bytes=4, encoding=encoding, base=base, runs=runs)
    assert used is encoding
    body = bytearray(found)
    for _ in range(data.draw(st.integers(1, 3))):
        place = st.integers(0, 30) | st.integers(0, len(body) - 1)
        body[data.draw(place)] = data.draw(st.integers(0, 255))
    body = body[: len(body) - data.draw(st.sampled_from([0, 0, 1, 50]))]
    try:
        size = len(decode_chunk(encoding, body, raw_bytes=len(raw), base=base))
    except PacketError:
        return
    assert size == len(raw)


def test_runs_begin_where_blocks_do() -> None:
    """Rules: P-80, P-81"""
    layer = pack_layer({"a": np.zeros(100, "<f4"), "b": np.zeros(600_000, "<f4"), "c": b_of(70)})
    layout = Layout(layer.parts[0], layer.raw_bytes)
    head = len(layer.parts[0])
    b_start = head + 448  # 400 bytes, padded to 64
    seen = 0
    for index in range(layout.chunks):
        for run in layout.chunk(index).runs:
            if run.items > 1000:
                place = index * MIB + run.start - b_start
                assert place % (4 * BLOCK) == 0
                assert place >= 4 * seen
                seen = place // 4 + run.items
    assert seen == 600_000
    assert layout.chunk(0).runs[0] == Run(head, "f32", 100)
    assert layout.chunk(layout.chunks - 1).runs[-1].dtype == "bf16"
    assert Layout(b"no layer").chunk(0) == Items(1, False)


def b_of(count: int) -> Tensor:
    return Tensor("bf16", (count,), memoryview(bytes(2 * count)))


def test_no_more_runs_than_a_reader_takes() -> None:
    """Rules: P-80"""
    layer = pack_layer({f"{i:04}": np.full(64 + i % 2, 0.5, "<f4") for i in range(1_200)})
    done = commit({f"{i:04}": np.full(64 + i % 2, 0.5, "<f4") for i in range(1_200)}, "int8")
    runs = Layout(layer.parts[0], layer.raw_bytes).chunk(0).runs
    assert len(runs) == RUNS_MAX
    assert sum(run.items == 65 for run in runs) == 600  # the longest first
    ((used, _, _),) = there_and_back(pack_layer(done.tensors), Encoding.INT8, None)
    assert used is Encoding.INT8
