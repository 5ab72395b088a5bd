"""Token buckets: the mean and the burst hold at any instant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mfd.core.bucket import Bucket


def test_a_burst_and_then_the_mean() -> None:
    bucket = Bucket(2, 3, 0)
    assert [bucket.take(1, 0) for _ in range(4)] == [True, True, True, False]
    wait_us = bucket.wait_us(1, 0)
    assert 500_000 <= wait_us <= 500_002
    assert not bucket.take(1, 499_000)
    assert bucket.take(1, wait_us)
    assert bucket.wait_us(3, 10_000_000) == 0


@given(steps=st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5)), max_size=50))
def test_no_more_than_burst_and_mean_together(steps: list[tuple[int, float]]) -> None:
    bucket, now, taken = Bucket(3, 4, 0), 0, 0.0
    for pause, amount in steps:
        now += pause
        if bucket.take(amount, now):
            taken += amount
        assert taken <= 4 + 3 * now / 1e6 + 1e-6
