"""How much a peer does of its own accord: searches, and links to far peers.

    R1   a far link that no circuit uses ends
    R6   no peer begins more rings of searches than its pace lets it

Rules of this package: see its __init__. Source: spec/routing.md, R-26; spec/membership.md, M-38.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mfd.sim import insight
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Bounds"]

FAR_IDLE_TIMES = 3  # the other side ends it after twice the time, and looks for it now and then


@dataclass(slots=True)
class _Life:
    """One host in its present life."""

    life: int
    from_us: int
    used_us: dict[int, int] = field(default_factory=dict)  # far link -> when it had a circuit


class Bounds:
    """Looks at all honest hosts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._lives: dict[int, _Life] = {}

    def look(self, host: Host) -> None:
        """Check one host. Raises: Violation."""
        if host.peer is None:
            return
        now_us = host.local_us(self._world.now_us)
        life = self._lives.get(host.index)
        if life is None or life.life != host.life:
            life = self._lives[host.index] = _Life(host.life, now_us)
        self._check_rings(host, now_us - life.from_us)
        far = insight.far_links(host.peer)
        if far or life.used_us:
            self._check_far(host, life, far, now_us)

    def _check_rings(self, host: Host, lived_us: int) -> None:
        assert host.peer is not None
        sent, config = insight.counter(host.peer, "seeks_sent"), host.config
        most = len(config.seek_rings) + lived_us // config.seek_every_us + 1
        if sent > most:
            raise self._violation(
                "R6", f"{host.name} has sent {sent} rings in {lived_us / 1e6:.0f} s; {most} at most"
            )

    def _check_far(self, host: Host, life: _Life, far: list[int], now_us: int) -> None:
        assert host.peer is not None
        before, life.used_us = life.used_us, {}
        for link in far:
            used_us = now_us if insight.carries(host.peer, link) else before.get(link, now_us)
            life.used_us[link] = used_us
            if now_us - used_us > FAR_IDLE_TIMES * host.config.far_idle_us and not host.paused:
                idle_s = (now_us - used_us) / 1e6
                raise self._violation(
                    "R1",
                    f"{host.name} keeps a far link without a circuit for {idle_s:.0f} s",
                )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")
