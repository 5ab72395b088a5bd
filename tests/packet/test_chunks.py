from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Encoding,
    Fault,
    PacketError,
    Tensor,
    decode_chunk,
    encode_chunk,
    item_bytes_at,
    item_bytes_of,
    pack_layer,
)
from mfd.packet.chunks import coded_share
from mfd.packet.layout import Layout
from tests.packet import reference

MIB = 1 << 20
DICE = np.random.default_rng(0)
WEIGHTS = DICE.normal(0, 0.02, MIB // 4).astype("<f4")
# As after a step of AdamW at a rate of 2e-5: every weight moved, by about a thousandth of itself.
TUNED = (WEIGHTS + DICE.normal(0, 2e-5, MIB // 4)).astype("<f4")
BF16 = (DICE.normal(0, 0.02, MIB // 2).astype("<f4").view("<u4") >> 16).astype("<u2")


@given(st.binary(min_size=1, max_size=40), st.integers(1, 60), st.sampled_from([1, 2, 4, 8]))
def test_round_trip(motif: bytes, times: int, width: int) -> None:
    """Rules: P-40, P-42, P-43, P-44"""
    raw = motif * times
    encoding, body = encode_chunk(raw, item_bytes=width)
    assert bytes(decode_chunk(encoding, body, raw_bytes=len(raw))) == raw
    assert reference.chunk(encoding, bytes(body), len(raw)) == raw
    assert (len(body) < len(raw)) == (encoding is Encoding.PLANES)


@pytest.mark.parametrize(
    ("array", "width", "ratio"),
    [
        # Plane entropies: 2.6 of 8 exponent bits for fp32 and bf16 (spec/rationale.md).
        (WEIGHTS, 4, 0.84),
        (BF16, 2, 0.67),
        (WEIGHTS[: MIB // 8].astype("<f8"), 8, 0.52),
        (np.arange(MIB // 8), 8, 0.01),
        (np.zeros(MIB, np.uint8), 1, 0.001),
    ],
)
def test_size(array: np.ndarray[Any, Any], width: int, ratio: float) -> None:
    """Rules: P-42"""
    raw = array.tobytes()
    encoding, body = encode_chunk(raw, item_bytes=width)
    assert encoding is Encoding.PLANES
    assert bytes(decode_chunk(encoding, body, raw_bytes=len(raw))) == raw
    assert len(body) <= ratio * len(raw)


def test_what_does_not_pay_stays_raw_and_is_not_copied() -> None:
    """Rules: P-41"""
    noise = DICE.bytes(MIB)
    assert encode_chunk(noise, item_bytes=4) == (Encoding.RAW, noise)
    assert encode_chunk(noise, item_bytes=4)[1] is noise
    assert encode_chunk(bytes(99), item_bytes=4, encoding=Encoding.RAW) == (Encoding.RAW, bytes(99))
    assert decode_chunk(Encoding.RAW, noise, raw_bytes=MIB) is noise


def test_many_threads_at_once() -> None:
    raws = [WEIGHTS[at:].tobytes() for at in range(0, 40, 5)]

    def there_and_back(raw: bytes) -> bool:
        encoding, body = encode_chunk(raw, item_bytes=4)
        return bytes(decode_chunk(encoding, body, raw_bytes=len(raw))) == raw

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(there_and_back, raws))


WIDTHS = st.sampled_from([1, 2, 4, 8])


@given(st.binary(min_size=1, max_size=40), st.integers(1, 30), WIDTHS, st.booleans(), st.data())
def test_delta_round_trip(
    motif: bytes, times: int, width: int, floats: bool, data: st.DataObject
) -> None:
    """Rules: P-45, P-46, P-47"""
    base = motif * times
    raw = bytearray(base + data.draw(st.binary(max_size=9)))
    for _ in range(3):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    encoding, body = encode_chunk(
        bytes(raw), item_bytes=width, encoding=Encoding.DELTA, base=base, floats=floats
    )
    assert bytes(decode_chunk(encoding, body, raw_bytes=len(raw), base=base)) == raw
    assert reference.chunk(encoding, bytes(body), len(raw), base) == raw


def test_a_delta_is_small() -> None:
    """Rules: P-47"""
    raw, base = TUNED.tobytes(), WEIGHTS.tobytes()
    encoding, body = encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=base)
    assert encoding is Encoding.DELTA
    assert decode_chunk(encoding, body, raw_bytes=MIB, base=base) == raw
    assert len(body) < 0.56 * MIB < 0.7 * len(encode_chunk(raw, item_bytes=4)[1])
    again = encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=raw)
    assert len(again[1]) < MIB // 1000


def test_a_delta_that_does_not_pay_gives_way() -> None:
    """Rules: P-41"""
    raw, other = WEIGHTS.tobytes(), WEIGHTS[::-1].tobytes()
    planes = encode_chunk(raw, item_bytes=4)
    noise = DICE.bytes(MIB)
    for base in (other, None, b"", noise):
        assert encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=base) == planes
    got = encode_chunk(noise, item_bytes=4, encoding=Encoding.DELTA, base=raw)
    assert got == (Encoding.RAW, noise)


def test_a_base_may_be_of_another_size() -> None:
    """Rules: P-46"""
    raw, base = TUNED[: MIB // 8].tobytes(), WEIGHTS[: MIB // 8].tobytes()
    for there in (base[: MIB // 2 - 9], base + base, bytearray(base), memoryview(base)):
        encoding, body = encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=there)
        assert encoding is Encoding.DELTA
        assert decode_chunk(encoding, body, raw_bytes=len(raw), base=there) == raw


def test_the_base_must_be_at_hand() -> None:
    """Rules: P-48"""
    raw, base = TUNED.tobytes(), WEIGHTS.tobytes()
    encoding, body = encode_chunk(raw, item_bytes=4, encoding=Encoding.DELTA, base=base)
    with pytest.raises(PacketError) as caught:
        decode_chunk(encoding, body, raw_bytes=MIB)
    assert caught.value.fault is Fault.BASE
    assert decode_chunk(encoding, body, raw_bytes=MIB, base=raw) != raw  # the digest tells


@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.PLANES, Encoding.DELTA])
def test_into_the_memory_of_the_caller(encoding: Encoding) -> None:
    raw = TUNED.tobytes()[:-3] + b"abc"
    used, body = encode_chunk(raw, item_bytes=4, encoding=encoding, base=WEIGHTS.tobytes())
    assert used is encoding
    room = np.zeros(MIB + 1, np.uint8)
    out = room.data[1:]  # not aligned, on purpose
    got = decode_chunk(used, body, raw_bytes=MIB, base=WEIGHTS.tobytes(), out=out)
    assert got is out
    assert room[1:].tobytes() == raw
    assert room[0] == 0


def test_what_an_entropy_coder_handles() -> None:
    share = [
        coded_share(*encode_chunk(raw, item_bytes=width))
        for raw, width in ((WEIGHTS, 4), (BF16, 2), (np.zeros(999, "<f8"), 8), (DICE.bytes(999), 1))
        for raw in [bytes(raw)]
    ]
    assert share == [0.25, 0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    ("raw", "width"), [(b"", 4), (bytes(MIB + 1), 4), (b"a", 3), (b"a", 0), (b"a", 16)]
)
def test_our_own_mistakes(raw: bytes, width: int) -> None:
    with pytest.raises(ValueError, match="are allowed"):
        encode_chunk(raw, item_bytes=width)


def test_a_bomb_takes_no_memory() -> None:
    """Rules: P-44"""
    bomb = zstandard.ZstdCompressor().compress(bytes(64 * MIB))
    head = bytes([1, 0, 0, 0]) + (len(bomb) | 1 << 31).to_bytes(4, "little")
    endless = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MIB))
    other = bytes([1, 0, 0, 0]) + (len(endless) | 1 << 31).to_bytes(4, "little")
    tracemalloc.start()
    for body in (head + bomb, other + endless):
        with pytest.raises(PacketError) as caught:
            decode_chunk(Encoding.PLANES, body, raw_bytes=MIB)
        assert caught.value.fault is Fault.ENCODING
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


BASES = st.none() | st.binary(max_size=90)


@given(st.integers(0, 255) | st.sampled_from(Encoding), st.binary(max_size=80), st.data())
def test_any_body_gives_the_size_or_an_error(
    encoding: int, body: bytes, data: st.DataObject
) -> None:
    """Rules: P-40, P-70"""
    raw_bytes, base = data.draw(st.integers(0, 200)), data.draw(BASES)
    try:
        raw = decode_chunk(encoding, body, raw_bytes=raw_bytes, base=base)
    except PacketError:
        return
    assert len(raw) == raw_bytes


@given(st.data(), st.sampled_from([Encoding.PLANES, Encoding.DELTA]))
def test_any_change_gives_the_size_or_an_error(data: st.DataObject, asked: Encoding) -> None:
    """Rules: P-40, P-70"""
    raw, base = TUNED[:500].tobytes(), WEIGHTS[:500].tobytes()
    encoding, found = encode_chunk(raw, item_bytes=4, encoding=asked, base=base)
    assert encoding is asked
    body = bytearray(found)
    for _ in range(data.draw(st.integers(1, 3))):
        place = st.integers(0, 40) | st.integers(0, len(body) - 1)
        body[data.draw(place)] = data.draw(st.integers(0, 255))
    body = body[: len(body) - data.draw(st.sampled_from([0, 0, 1, 50]))]
    try:
        size = len(decode_chunk(encoding, body, raw_bytes=len(raw), base=base))
    except PacketError:
        return
    assert size == len(raw)


def test_widths_follow_the_table() -> None:
    layer = pack_layer({"a": WEIGHTS, "b": BF16, "c": np.zeros(MIB // 8, np.complex128)})
    raw = layer.tobytes()
    widths = item_bytes_of(raw)
    assert widths == [4, 2, 8, 8, 8]  # complex128 is pairs of 8 bytes
    assert [item_bytes_at(raw, i) for i in range(5)] == widths
    assert item_bytes_of(layer.parts[0], layer.raw_bytes) == widths
    assert item_bytes_of(b"no layer at all") == [1]


def test_kinds_of_elements_follow_the_table() -> None:
    layer = pack_layer(
        {
            "a": WEIGHTS,
            "b": np.zeros(MIB // 4, np.int32),
            "c": Tensor("bf16", (MIB // 2,), memoryview(BF16).cast("B")),
            "d": Tensor("f4_e2m1fn_x2", (2 * MIB,), memoryview(bytes(2 * MIB))),
        }
    )
    kinds = [(4, True), (4, False), (2, True), (1, False), (1, False), (1, False)]
    layout = Layout(layer.parts[0], layer.raw_bytes)
    found = [layout.chunk(index) for index in range(layout.chunks)]
    assert [(items.width, items.floats) for items in found] == kinds
    assert (Layout(b"no layer").chunk(0).width, Layout(b"no layer").chunk(0).floats) == (1, False)
