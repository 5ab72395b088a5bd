"""What must happen once faults have stopped and a connected core is healed.

    L1  every walker that the core keeps goes on, and comes home where its home is in the core;
        where nothing has ever gone wrong, it has been with every holder, however many there are
    L2  every peer of the core has routes to holders of each name that the core holds, and each
        next hop leads on to the holder
    L3  what one peer of the core says to everybody reaches all of it
    L5  of several branches of a walker one stays: who owns an older epoch hears of the newer one,
        by broadcast or where they meet
    R2  when all is quiet, control costs at most the larger of 2 kB/s and 2 % of each link
    R3  what a disk keeps is named by its rows

Rules of this package: see its __init__.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heappop, heappush

from mfd.core.custody import Role
from mfd.core.frames import Class
from mfd.core.routestate import Route
from mfd.sim import insight
from mfd.sim.checks.custody import OWNERS, Custody
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Recovery"]

CONTROL_SHARE = 0.02
CONTROL_FLOOR = 2_000  # bytes/s and link
GARBAGE_BYTES = 1 << 20

Marker = tuple[str, str, tuple[int, bytes, int], int]


@dataclass(slots=True)
class Recovery:
    """Judges one core from the moment when it is healed."""

    world: World
    custody: Custody
    core: set[str]
    homes: dict[bytes, str]  # walker -> home
    holders: list[str]
    auto: bool = True  # shadows may take over
    marks: dict[bytes, Marker] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    sent_us: int = 0

    def mark(self) -> None:
        """Remember where every walker is now; from here on it must move."""
        self.marks = self.custody.best(self.core)

    def done(self) -> set[bytes]:
        """Return the walkers that are home for good, on any disk."""
        return self.custody.done()

    def expected(self) -> set[bytes]:
        """Return the walkers that must come home: the core keeps them and their home."""
        return {w for w in self._kept() if self.homes.get(w) in self.core}

    def _kept(self) -> dict[bytes, Marker]:
        """Return the walkers that somebody in the core owns, or may come to own."""
        best = self.custody.best(self.core)
        return {w: mark for w, mark in best.items() if self.auto or mark[1] in OWNERS}

    def settled(self) -> bool:
        """Whether nothing is left to wait for."""
        return not self._waiting() and not self._forked()

    def _waiting(self) -> dict[bytes, tuple[Marker, str]]:
        """Return the walkers that have yet to do what they must."""
        done, expected = self.done(), self.expected()
        out = {}
        for walker, mark in self._kept().items():
            if walker in done:
                continue
            if walker in expected:
                out[walker] = (mark, "it did not come home")
            elif self.marks.get(walker) == mark and self._has_more_to_visit(walker, mark):
                out[walker] = (mark, "it did not move")
        return out

    def check_walkers(self) -> None:
        """L1. Raises: Violation."""
        for walker, (mark, what) in self._waiting().items():
            name, role, position, seq = mark
            where = f"{walker.hex()[:12]} at {name} ({role}, epoch {position[0]}, seq {seq})"
            raise self._violation("L1", f"walker {where}: {self._says(mark)}; {what}")

    def check_visits(self) -> None:
        """L1, where nothing has ever gone wrong: no holder was left out. Raises: Violation."""
        ids = {self.world.hosts[n].key.public_key.hex(): n for n in self.holders}
        stops: dict[str, set[str]] = {}
        for host in self.world.hosts.values():
            for _, report in host.reports:
                if report.kind == "stop":
                    seen = stops.setdefault(str(report.fields["walker"]), set())
                    seen.add(str(report.fields["peer"]))
        for walker in self.done():
            left = sorted(n for i, n in ids.items() if i not in stops.get(walker.hex(), ()))
            if left:
                raise self._violation(
                    "L1", f"walker {walker.hex()[:12]} came home and was never with {left[0]}"
                )

    def _says(self, mark: Marker) -> str:
        peer = self.world.hosts[mark[0]].peer
        if peer is None:
            return "off"
        best = [w for w in insight.walkers(peer) if w.high_water == mark[2]]
        return best[0].activity if best else "unknown"

    def _has_more_to_visit(self, walker: bytes, mark: Marker) -> bool:
        peer = self.world.hosts[mark[0]].peer
        live = [w for w in insight.walkers(peer) if w.id == walker] if peer is not None else []
        if not live or live[0].version is None or live[0].role is not Role.OWN:
            return False
        progress = live[0].version.manifest.progress
        if progress.lap >= live[0].plan.laps:
            return False  # only home is left
        visited = set(progress.visited)
        ids = {self.world.hosts[n].key.public_key for n in self.holders if n in self.core}
        return bool(ids - visited)

    def _forked(self) -> dict[bytes, list[str]]:
        """Return the hosts that own a walker, where several in the core go on with it."""
        owners = self.custody.owners(self.core, done=False)
        return {walker: names for walker, names in owners.items() if len(names) > 1}

    def check_forks(self) -> None:
        """L5. Raises: Violation."""
        for walker, names in self._forked().items():
            who = " and ".join(names)
            raise self._violation("L5", f"walker {walker.hex()[:12]} is owned by {who} for good")

    def forks(self) -> int:
        """Return how many walkers have more than one unfenced owner in the core."""
        return sum(1 for names in self.custody.owners(self.core).values() if len(names) > 1)

    # broadcasts

    def check_broadcast(self, ident: bytes) -> None:
        """L3. Raises: Violation."""
        for name in sorted(self.core):
            peer = self.world.hosts[name].peer
            if peer is not None and ident not in insight.members(peer).gossip.seen:
                raise self._violation("L3", f"what was said to everybody did not reach {name}")

    # routes

    def check_routes(self) -> None:
        """L2. Raises: Violation."""
        held: dict[str, list[Host]] = {}
        for name in self.holders:
            host = self.world.hosts[name]
            if name in self.core:
                for data in host.holdings:
                    held.setdefault(data, []).append(host)
        tables = {
            name: insight.selected(host.peer)
            for name, host in self.world.hosts.items()
            if name in self.core and host.peer is not None
        }
        for name, table in tables.items():
            for data in held:
                for cls in Class:
                    sigmas = [s for s in table if s.name == data and s.cls == cls]
                    if not sigmas:
                        raise self._violation("L2", f"{name} has no route to {data}")
                    for sigma in sigmas:
                        self._follow(name, sigma, tables)

    def _follow(
        self, name: str, sigma: insight.Sigma, tables: dict[str, dict[insight.Sigma, Route]]
    ) -> None:
        here = name
        for _ in range(len(self.world.hosts) + 1):
            if here not in tables:
                raise self._violation("L2", f"a route of {name} to {sigma.name} leads to {here}")
            route = tables[here].get(sigma)
            if route is None:
                raise self._violation("L2", f"a route of {name} to {sigma.name} ends at {here}")
            number = route.link
            if number is None:
                return
            link = self.world.wires.links.get(number)
            if link is None or not all(link.up):
                raise self._violation("L2", f"a route of {name} leads over a dead link of {here}")
            here = link.hosts[1 - link.side(self.world.hosts[here])].name
        raise self._violation("L2", f"a route of {name} to {sigma.name} never ends")

    def check_nearest(self) -> None:
        """L2, where nothing has ever gone wrong: each peer knows the truly nearest holders."""
        away = {host.key.public_key: self._distances(host) for host in self._holding()}
        for name in sorted(self.core):
            host = self.world.hosts[name]
            assert host.peer is not None
            keep = host.config.sources_per_name
            for data in {data for other in self._holding() for data in other.holdings}:
                known = [s for s in insight.selected(host.peer).items() if s[0].name == data]
                for cls in Class:
                    routes = sorted((r.metric, s.holder) for s, r in known if s.cls == cls)
                    truth = sorted((away[h][name], h) for h in away if data in self._data(h))
                    if routes[:keep] != truth[:keep]:
                        raise self._violation(
                            "L2", f"{name} does not know the {keep} nearest holders of {data}"
                        )

    def _holding(self) -> list[Host]:
        return [self.world.hosts[name] for name in self.holders if name in self.core]

    def _data(self, holder: bytes) -> dict[str, int]:
        return next(h.holdings for h in self._holding() if h.key.public_key == holder)

    def _distances(self, start: Host) -> dict[str, int]:
        """Metric from a host to every other one, over links that stand."""
        found: dict[str, int] = {}
        heap = [(0, start.name)]
        while heap:
            metric, name = heappop(heap)
            if name in found:
                continue
            found[name] = metric
            for wire in self.world.wires.of(name):
                if wire.link is not None and all(wire.link.up):
                    other = wire.ends[1 - wire.ends.index(name)]
                    heappush(heap, (metric + wire.cost, other))
        return found

    # resources

    def measure(self) -> None:
        """Begin to count control bytes."""
        self.sent_us = self.world.now_us
        self.sent = {name: self.world.hosts[name].sent_bytes["control"] for name in self.core}

    def check_control(self) -> float:
        """R2: return the most control bytes/s and link of any peer. Raises: Violation."""
        seconds = max(1e-6, (self.world.now_us - self.sent_us) / 1e6)
        worst = 0.0
        for name, before in self.sent.items():
            host = self.world.hosts[name]
            wires = [w for w in self.world.wires.of(name) if w.link is not None and any(w.link.up)]
            if not wires:
                continue
            rate = (host.sent_bytes["control"] - before) / seconds / len(wires)
            worst = max(worst, rate)
            narrowest = min(w.bytes_per_s for w in wires)
            limit = max(CONTROL_FLOOR, CONTROL_SHARE * narrowest)
            if rate > limit:
                raise self._violation(
                    "R2", f"{name} sends {rate:.0f} control bytes/s and link; limit {limit:.0f}"
                )
        return worst

    def check_disks(self) -> None:
        """R3. Raises: Violation."""
        for name in sorted(self.core):
            host = self.world.hosts[name]
            if host.peer is None or host.disk.syncing:
                continue
            named = {d for w in insight.walkers(host.peer) for d in w.kept()}
            named |= {
                d for w in insight.walkers(host.peer) for v in w.pinned.values() for d in v.objects
            }
            garbage = sum(len(o) for d, o in host.disk.objects.items() if d not in named)
            if garbage > GARBAGE_BYTES:
                raise self._violation("R3", f"{name} keeps {garbage} bytes that no row names")

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self.world.now_us / 1e6:.6f} s")
