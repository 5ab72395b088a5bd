"""Dialling: one an address, a bounded number in all, each time after twice as long."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.core.dials import Dialled, Dials, Kept, Purpose, backoff_us
from mfd.core.effects import Dial, Report
from tests.core.lone import SECOND, Lone


def dialled(effects: list) -> list[str]:
    return [effect.address for effect in effects if isinstance(effect, Dial)]


def test_one_dial_an_address_and_a_peer() -> None:
    """Rules: M-18"""
    it = Lone()
    dials = Dials(it.ctx)
    assert dials.dial("a:1", Purpose.ASK, b"peer")
    assert not dials.dial("a:1", Purpose.JOIN)
    assert not dials.dial("b:1", Purpose.ASK, b"peer")
    assert dialled(it.step()) == ["a:1"]
    assert dials.done("a:1") == Dialled(Purpose.ASK, b"peer")
    assert dials.done("a:1") is None
    assert dials.dial("a:1", Purpose.JOIN)


def test_dials_are_bounded_but_not_the_owners() -> None:
    """Rules: M-18"""
    it = Lone(Config(dials_max=3))
    dials = Dials(it.ctx)
    assert [dials.dial(f"a:{n}", Purpose.ASK) for n in range(5)] == [True] * 3 + [False] * 2
    assert dials.dial("mine:1", Purpose.KEEP)
    assert len(dials) == 4


def test_waits_double_up_to_the_longest() -> None:
    """Rules: M-18"""
    it = Lone()
    waits = [backoff_us(it.ctx, tries, 300 * SECOND) / SECOND for tries in range(1, 14)]
    for tries, wait in enumerate(waits):
        shortest = min(2**tries, 300)
        assert shortest <= wait <= 1.25 * shortest


def test_a_kept_address_is_dialled_for_ever() -> None:
    """Rules: M-18, M-22"""
    it = Lone()
    dials = Dials(it.ctx)
    kept = Kept(it.ctx, dials)
    kept.keep("a:1")
    kept.keep("a:1")
    assert dialled(it.step()) == ["a:1"]
    times = []
    for _ in range(12):
        dials.done("a:1")
        kept.failed("a:1", "nobody listens there")
        start = it.ctx.now_us
        assert dialled(it.run(40)) == ["a:1"]
        times.append((it.effects[-1][0] - start) / SECOND)
    assert max(times) <= 30 * 1.25
    assert sum(isinstance(effect, Report) for _, effect in it.effects) == 1
    assert kept.unreachable() == {"a:1": "nobody listens there"}
    dials.done("a:1")
    kept.up("a:1", 7)
    assert not kept.unreachable()
    assert not dialled(it.run(100))
    kept.down(8)
    assert not dialled(it.run(100))
    kept.down(7)
    assert dialled(it.run(1.3)) == ["a:1"]
    dials.done("a:1")
    kept.failed("a:1", "again")
    assert sum(isinstance(effect, Report) for _, effect in it.effects) == 1
    assert any(isinstance(effect, Report) for effect in it.step())


def test_other_addresses_are_not_its_business() -> None:
    it = Lone()
    kept = Kept(it.ctx, Dials(it.ctx))
    kept.failed("x:1", "no")
    kept.up("x:1", 1)
    assert not it.run(100)
