from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet.delta import apply, difference, fitted

BITS = st.sampled_from([8, 16, 32, 64])


@given(BITS, st.data(), st.booleans())
def test_any_pattern_of_bits_comes_back(bits: int, data: st.DataObject, floats: bool) -> None:
    """Rules: P-47"""
    one = st.integers(0, (1 << bits) - 1)
    pairs = data.draw(st.lists(st.tuples(one, one), min_size=1, max_size=20))
    items, base = (np.array(column, f"u{bits // 8}") for column in zip(*pairs, strict=True))
    steps = difference(items, base, floats=floats)
    assert steps.dtype == items.dtype
    assert np.array_equal(apply(steps, base, floats=floats), items)


def test_every_half_comes_back_from_every_kind_of_base() -> None:
    """Rules: P-47"""
    items = np.arange(1 << 16, dtype=np.uint16)
    for pattern in (0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E01, 0xFFFF, 0x3C00, 0x83FF):
        base = np.full_like(items, pattern)
        for floats in (True, False):
            steps = difference(items, base, floats=floats)
            assert len(np.unique(steps)) == 1 << 16
            assert np.array_equal(apply(steps, base, floats=floats), items)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_one_step_is_the_next_float(kind: str) -> None:
    """Rules: P-47"""
    tiny = np.finfo(kind).smallest_subnormal
    values = np.array([1.0, -1.0, 0.02, -0.02, tiny, -tiny, np.finfo(kind).max, 65.5], kind)
    with np.errstate(all="ignore"):  # the largest float overflows, the smallest underflow
        above = np.nextafter(values, np.array(np.inf, kind))
    above[5] = -0.0  # which numpy calls the next one too, as 0.0 it would be two steps
    uint = f"u{kind[1]}"
    assert set(difference(above.view(uint), values.view(uint), floats=True)) == {2}
    assert set(difference(values.view(uint), above.view(uint), floats=True)) == {1}


def test_integers_count_as_integers() -> None:
    """Rules: P-47"""
    new, old = np.array([3, 1, -1, 0], "<i4"), np.array([1, -1, 1, 0], "<i4")
    assert list(difference(new.view("<u4"), old.view("<u4"), floats=False)) == [4, 4, 3, 0]


def test_a_base_is_cut_or_ended_with_zeros() -> None:
    """Rules: P-46"""
    base = b"abcd"
    assert fitted(base, 6) == b"abcd\0\0"
    assert fitted(base, 2) == b"ab"
    assert fitted(memoryview(base), 0) == b""
    assert fitted(base, 4).obj is base
