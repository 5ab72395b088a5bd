"""What every peer and every walker gets of what is short: time for signatures, and slots.

    L6   no walker is refused for want of a slot, again and again, by a custodian that takes in many
         others meanwhile
    R5   no peer checks more signatures in ten seconds than its neighbours can fairly cause

Rules of this package: see its __init__.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfd.core.effects import Effect, Report
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["CHECKS_MAX", "Shares"]

WINDOW_US = 10_000_000
CHECKS_MAX = 5_000  # in a window: a twentieth of a core with Ed25519; peers of the swarm reach 150
NO_SLOT = "no free slot"
REFUSALS = 6  # in a row, by the same custodian, ...
PASSED_OVER = 24  # ... that has taken in so many others since the first


@dataclass(slots=True)
class _Window:
    life: int
    from_us: int
    checked: int  # before it


@dataclass(slots=True)
class _Turn:
    """A walker that one custodian has refused."""

    refusals: int = 0
    passed_over: int = 0


class Shares:
    """Watches all honest peers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._windows: dict[int, _Window] = {}
        self._turns: dict[str, dict[str, _Turn]] = {}  # by walker, by custodian
        self.checks_peak = 0  # signatures in ten seconds, at most

    def __call__(self, host: Host, effects: Sequence[Effect]) -> None:
        """Check one host after one event. Raises: Violation."""
        now_us = self._world.now_us
        window = self._windows.get(host.index)
        if window is None or window.life != host.life or now_us - window.from_us > WINDOW_US:
            self._windows[host.index] = window = _Window(host.life, now_us, host.signatures)
        checks = host.signatures - window.checked
        if checks > self.checks_peak:
            self.checks_peak = checks
            if checks > CHECKS_MAX:
                seconds = (now_us - window.from_us) / 1e6
                raise self._violation(
                    "R5", f"{host.name} has checked {checks} signatures in {seconds:.1f} s"
                )
        for effect in effects:
            if type(effect) is Report and effect.kind in ("refused", "handed"):
                self._took_turns(effect)

    def _took_turns(self, report: Report) -> None:
        walker = str(report.fields.get("walker", ""))
        if report.kind == "handed":
            self._turns.pop(walker, None)
            for turns in self._turns.values():
                turn = turns.get(str(report.fields["target"]))
                if turn is not None:
                    turn.passed_over += 1
        elif report.fields.get("reason") == NO_SLOT:
            holder = str(report.fields["holder"])
            turn = self._turns.setdefault(walker, {}).setdefault(holder, _Turn())
            turn.refusals += 1
            if turn.refusals >= REFUSALS and turn.passed_over >= PASSED_OVER:
                raise self._violation(
                    "L6",
                    f"{holder[:12]} has refused {walker[:12]} {turn.refusals} times and taken in "
                    f"{turn.passed_over} others meanwhile",
                )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")
