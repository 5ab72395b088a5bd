"""Fault texts: what is read is what was written; what is wrong is said in one sentence."""

from __future__ import annotations

import pytest

from mfd.sim.chance import Streams
from mfd.sim.faults import Appointment, FaultError, Faults, draw, parse


def test_a_text_is_read() -> None:
    faults = parse(
        "kill=0.02, loss=1%,delay=20ms,bandwidth=10Mbit/s,partition@30s-60s,storm@1m=0.2"
    )
    assert faults == Faults(
        kill=0.02,
        loss=0.01,
        delay_us=20_000,
        bandwidth_bps=10_000_000,
        appointments=(
            Appointment("partition", 30_000_000, 60_000_000, 0.5),
            Appointment("storm", 60_000_000, 70_000_000, 0.2),
        ),
    )
    assert faults.names == ("kill", "loss", "delay_us", "bandwidth_bps", "partition", "storm")
    assert parse("none") == parse("") == Faults()


def test_liars_are_told_as_a_share_or_by_their_number() -> None:
    assert parse("liars=25%").liars == 0.25
    assert parse("liars=2").liars == parse(str(parse("liars=2"))).liars == 2
    for text in ("liars=0.6", "liars=1.5", "liars=17", "crash=2,liars=-1"):
        with pytest.raises(FaultError, match="from 0 to"):
            parse(text)


@pytest.mark.parametrize("seed", range(50))
def test_drawn_faults_survive_being_written_down(seed: int) -> None:
    faults = draw(Streams(seed).of("swarm"), 60)
    assert parse(str(faults)) == faults


def test_a_swarm_leaves_each_fault_out_at_times() -> None:
    drawn = [draw(Streams(seed).of("swarm"), 60) for seed in range(200)]
    for name in ("crash", "loss", "cut", "amnesia", "drift"):
        zero = sum(getattr(faults, name) == 0 for faults in drawn)
        assert 50 < zero < 150, name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("los=0.1", "there is no fault 'los'"),
        ("loss", "the fault 'loss' needs a value, as loss=0.01"),
        ("loss=much", "'much' is not a number"),
        ("loss=0.9", "from 0 to 0.5"),
        ("crash=-1", "from 0 to 60"),
        ("delay=soon", "'soon' is not a time"),
        ("delay=1h", "at most 10s"),
        ("bandwidth=fast", "'fast' is not a bandwidth"),
        ("bandwidth=1bit/s", "at least 8 kbit/s"),
        ("loss@3s", "only partition, storm, swizzle, power happen at a time"),
        ("partition@60s-30s", "ends before it begins"),
        ("partition@noon", "'noon' is not a time"),
        ("storm@1s=2", "from 0 to 1"),
    ],
)
def test_what_is_wrong_is_said(text: str, sentence: str) -> None:
    with pytest.raises(FaultError, match=sentence):
        parse(text)
