"""Memory lent by neighbour, and links measured from bytes alone."""

from __future__ import annotations

from mfd.core.credit import Meter, Reserve

MB = 1_000_000


def test_one_neighbour_has_a_quarter_and_all_together_the_whole() -> None:
    """Rules: T-18"""
    reserve = Reserve(64)
    assert reserve.take(1, 16)
    assert not reserve.take(1, 1)
    assert all(reserve.take(link, 16) for link in (2, 3, 4))
    assert not reserve.could(5, 1)
    reserve.give(2, 10)
    assert reserve.held == 54
    assert reserve.take(5, 10)
    assert not reserve.take(2, 1)


def test_a_rate_is_of_the_time_in_which_bytes_flow() -> None:
    """Rules: T-17"""
    meter = Meter()
    now = 5 * MB
    for burst in range(3):
        for _ in range(30):
            now += 1_000
            meter.came(1_000, now)  # 1,000 bytes a ms
        assert meter.rate == (MB if burst or meter.rate else 0)
        now += 10 * MB  # nothing to send is not a slow link
    assert meter.rate == MB


def test_a_rate_rises_at_once_and_falls_slowly() -> None:
    meter = Meter()
    meter.took(100_000, 100_000)
    assert meter.rate == MB
    meter.took(1_000_000, 100_000)
    assert meter.rate == 10 * MB
    meter.took(200_000, 100_000)
    assert meter.rate == 8 * MB


def test_the_shortest_round_trip_counts_until_it_fades() -> None:
    """Rules: T-17"""
    meter = Meter()
    for rtt in (9_000, 2_000, 40_000):
        meter.returned(rtt)
    assert 2_000 < meter.rtt_us < 7_000
    for _ in range(100):
        meter.returned(40_000)
    assert meter.rtt_us > 39_000


def test_a_window_is_twice_what_is_under_way() -> None:
    """Rules: T-17"""
    meter = Meter()
    assert meter.window(256, 4_096) == 256
    meter.took(100_000, 100_000)
    meter.returned(1_000)  # 1,000 bytes under way
    assert meter.window(256, 4_096) == 2_000
    assert meter.window(256, 1_024) == 1_024
