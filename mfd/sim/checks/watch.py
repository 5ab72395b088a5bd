"""All checkers of a world at once: after every event up to 60 hosts, sampled above.

Above 60 hosts what one host says is checked at every n-th host, so that about 60 are; circles in
next hops are looked for once in so many events as 20 a host.

Rules of this package: see its __init__.
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.custody import Role
from mfd.core.effects import Effect, Send
from mfd.core.events import Event
from mfd.sim import insight
from mfd.sim.checks.admission import Admission
from mfd.sim.checks.bounds import Bounds
from mfd.sim.checks.circuits import CircuitFlow
from mfd.sim.checks.custody import Custody
from mfd.sim.checks.members import Members
from mfd.sim.checks.paces import Paces
from mfd.sim.checks.routes import Routing
from mfd.sim.checks.shares import Shares
from mfd.sim.world import Host, World

__all__ = ["EVERY_EVENT_HOSTS", "Watch"]

EVERY_EVENT_HOSTS = 60
SWEEP_EVENTS = 20  # a host
READ_EVENTS = 8  # disks of all hosts are read once in so many events
LOOK_EVENTS = 8  # tables and queues of a host are looked at once in so many of its events


class Watch:
    """Watches a world; use as `world.observers.append(Watch(world, liars))`."""

    def __init__(self, world: World, liars: set[str] | None = None) -> None:
        liars = set() if liars is None else liars
        self._world = world
        self._liars = liars
        self.custody = Custody(world, liars)
        self.routing = Routing(world, liars)
        self.circuits = CircuitFlow(world, liars)
        self.members = Members(world, liars)
        self.shares = Shares(world)
        self.admission = Admission(world, self.custody)
        self.bounds = Bounds(world)
        self.paces = Paces(world)
        self._stride = -(-len(world.hosts) // EVERY_EVENT_HOSTS) if world.hosts else 1
        self.routing.sweeping = self.sampled
        self._looks: dict[int, int] = {}
        self.looked = 0  # events checked

    @property
    def sampled(self) -> bool:
        """Whether only some hosts are checked after every event."""
        return self._stride > 1

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check everything after one event. Raises: Violation."""
        if self._stride > 1:
            self.custody.read([host])
            if not self._world.events % (SWEEP_EVENTS * len(self._world.hosts)):
                self.routing.sweep()
            if host.index % self._stride:
                return
        else:
            # between events a disk changes only where its host is switched off
            every = not self._world.events % READ_EVENTS
            self.custody.read(self._world.hosts.values() if every else [host])
        self.looked += 1
        said = [effect for effect in effects if type(effect) is Send]
        self.routing(host, event, said)
        if host.name not in self._liars:
            self.custody.look(host, event, said)
            self.circuits(host, event, said)
            self.members(host, event, said)
            self.shares(host, effects)
            self.paces(host, event, said)
            turn = self._looks[host.index] = self._looks.get(host.index, 0) + 1
            if not turn % LOOK_EVENTS:
                self.circuits.look(host)
                self.members.look(host)
                self.admission.look(host)
                self.bounds.look(host)
        else:
            self._suspect(host)
        self.members.sweep()

    def _suspect(self, host: Host) -> None:
        """Remember which walkers a liar has owned, kept or held."""
        for walker in insight.walkers(host.peer) if host.peer is not None else ():
            if walker.role is not Role.NONE or walker.held is not None:
                self.custody.lying.setdefault(walker.id, set()).add(host.name)
