"""A token bucket."""

from __future__ import annotations

from mfd.core.rates import Bucket


def test_a_burst_then_the_rate() -> None:
    bucket = Bucket(10, 3)
    assert [bucket.take(0) for _ in range(5)] == [True] * 3 + [False] * 2
    assert [bucket.take(100_000) for _ in range(2)] == [True, False]
    assert sum(bucket.take(t) for t in range(200_000, 10_200_000, 1_000)) in (100, 101)


def test_it_fills_up_to_its_burst_only() -> None:
    bucket = Bucket(10, 3)
    assert bucket.take(0)
    assert [bucket.take(3_600_000_000) for _ in range(5)] == [True] * 3 + [False] * 2
