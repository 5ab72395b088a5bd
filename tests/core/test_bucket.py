"""Token buckets: the mean and the burst hold at any instant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.bucket import Bucket

HOUR_US = 3_600_000_000


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket(10, 3)
    assert [bucket.take(0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [bucket.take(100_000) for _ in range(2)] == [True, False]
    assert sum(bucket.take(t) for t in range(200_000, 10_200_000, 1_000)) in (100, 101)


def test_tokens_come_back_with_time_up_to_the_burst() -> None:
    """Rules: T-19"""
    bucket = Bucket(10, 32)
    assert [bucket.take(0) for _ in range(33)] == [True] * 32 + [False]
    assert not bucket.take(99_999)
    assert bucket.take(100_000)
    assert not bucket.take(100_000)
    assert [bucket.take(HOUR_US) for _ in range(33)] == [True] * 32 + [False]


def test_how_long_to_wait() -> None:
    bucket = Bucket(2, 3)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    wait_us = bucket.wait_us(0)
    assert 500_000 <= wait_us <= 500_002
    assert not bucket.take(499_000)
    assert bucket.take(wait_us)
    assert bucket.wait_us(10_000_000, 3) == 0


@pytest.mark.parametrize("now_us", [0, 7, HOUR_US])
def test_a_bucket_is_full_whenever_it_is_made(now_us: int) -> None:
    bucket = Bucket(0.2, 4)
    assert bucket.take(now_us, 4)
    assert not bucket.take(now_us, 0.5)


@given(steps=st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5)), max_size=50))
def test_no_more_than_burst_and_mean_together(steps: list[tuple[int, float]]) -> None:
    bucket, now, taken = Bucket(3, 4), 0, 0.0
    for pause, amount in steps:
        now += pause
        if bucket.take(now, amount):
            taken += amount
        else:
            assert bucket.wait_us(now, amount) > 0
        assert taken <= 4 + 3 * now / 1e6 + 1e-6
