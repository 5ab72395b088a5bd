"""What a peer takes from one neighbour of what costs it, or others, more than the frame itself.

    R7   no peer takes more OPEN, rumours, or frames with records of others from one neighbour than
         its pace lets it

Rules of this package: see its __init__. Source: spec/transfer.md, T-19; spec/membership.md, M-29,
M-35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mfd.core.effects import Send
from mfd.core.events import Event, Received
from mfd.sim import insight
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Paces"]

OPEN, OPENED = 16, 17
FORWARD_JOIN, ASK, SHUFFLE, SHUFFLE_REPLY = 33, 34, 36, 37
RUMOUR = 41
# what was taken shows in what is said because of it
SHOWN = {
    OPEN: ("OPEN", (OPEN, OPENED)),
    FORWARD_JOIN: ("records", (FORWARD_JOIN, ASK)),
    SHUFFLE: ("records", (SHUFFLE, SHUFFLE_REPLY)),
}


@dataclass(slots=True)
class _Taken:
    """From one neighbour, since its first frame of these kinds."""

    from_us: int
    times: dict[str, int] = field(default_factory=dict)


class Paces:
    """Watches all honest peers."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._taken: dict[tuple[int, int], _Taken] = {}
        self._judged: dict[tuple[int, int], int] = {}  # rumours, by host and life

    def __call__(self, host: Host, event: Event, effects: Sequence[Send]) -> None:
        """Check one host after one event. Raises: Violation."""
        if type(event) is not Received or not len(event.frame) or host.peer is None:
            return
        kind = event.frame[0]
        if kind == RUMOUR:
            heard = ("rumours_heard", "rumours_ended")
            judged = sum(insight.counter(host.peer, word) for word in heard)
            before = self._judged.get((host.index, host.life), 0)
            self._judged[host.index, host.life] = judged
            if judged > before:
                self._count(host, event.link, "rumours")
        elif kind in SHOWN:
            what, answers = SHOWN[kind]
            if any(send.frame[0][0] in answers for send in effects):
                self._count(host, event.link, what)

    def _count(self, host: Host, link: int, what: str) -> None:
        now_us, config = host.local_us(self._world.now_us), host.config
        taken = self._taken.setdefault((host.index, link), _Taken(now_us))
        times = taken.times[what] = taken.times.get(what, 0) + 1
        per_s, burst = {
            "OPEN": (config.opens_per_s, config.opens_burst),
            "records": (config.joins_per_s, config.joins_burst),
            "rumours": (config.rumours_per_s, config.rumours_burst),
        }[what]
        most = burst + per_s * (now_us - taken.from_us) / 1e6 + 1
        if times > most:
            raise self._violation(
                "R7", f"{host.name} has taken {times} {what} of one neighbour; {most:.0f} at most"
            )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")
