"""A small world for membership: peers that can all dial each other, unless something cuts them off.

Time moves in rounds: a dial takes one, a frame takes one, so that counting rounds means something.
Frames are real bytes. There is one link between two peers, as mfd.net.transport has it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from heapq import heappop, heappush

import networkx as nx

from mfd.core.config import Config
from mfd.core.effects import Close, Dial, Effect, Remember, Report, Send
from mfd.core.events import (
    Addressed,
    DialFailed,
    Event,
    LinkDown,
    LinkUp,
    Received,
    Remembered,
    Restored,
    Ticked,
)
from mfd.core.peer import Peer
from mfd.sim.keys import SimKey, sim_verify

SECOND = 1_000_000
ROUND = 50_000  # one way between any two peers


@dataclass(eq=False, repr=False)
class Box:
    """A machine: its peer, and what it keeps over a restart."""

    name: int
    key: SimKey
    address: str
    boot: int = 0
    peer: Peer | None = None
    life: int = 0
    links: dict[int, tuple[Box, int]] = field(default_factory=dict)  # link -> (other, link there)
    remembered: tuple = ()
    reports: list[Report] = field(default_factory=list)
    frames: list[tuple[int, int, bytes]] = field(default_factory=list)  # when, to whom, what
    armed: int | None = None

    @property
    def alive(self) -> bool:
        return self.peer is not None


class MemberWorld:
    """Boxes by number."""

    def __init__(self, seed: int = 1, config: Config | None = None) -> None:
        self.seed = seed
        self.config = config or Config(open_network=True)
        self.now = 0
        self.boxes: dict[int, Box] = {}
        self.by_address: dict[str, Box] = {}
        self.cut: Callable[[Box, Box], bool] = lambda a, b: False
        self.silent: set[int] = set()  # boxes whose frames are lost on the way out
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self._links = 0
        self.recording = False

    # building and breaking

    def add(self, *, config: Config | None = None, subnet: str = "10.0") -> Box:
        name = len(self.boxes)
        address = f"{subnet}.{name // 250}.{name % 250 + 1}:7000"
        box = Box(name, SimKey(f"box{name}".encode()), address)
        self.boxes[name] = self.by_address[address] = box
        self.start(box, config)
        return box

    def start(self, box: Box, config: Config | None = None) -> None:
        box.boot += 1
        box.life += 1
        seed = f"{self.seed}/{box.name}/{box.boot}".encode()
        box.peer = Peer(signer=box.key, verify=sim_verify, config=config or self.config, seed=seed)
        box.armed = None
        self.happen(box, Restored(box.boot))
        self.happen(box, Addressed((box.address,)))
        if box.remembered:
            self.happen(box, Remembered(box.remembered))

    def kill(self, *boxes: Box) -> None:
        """Switch off at once; neighbours see closed sockets a round later."""
        for box in boxes:
            box.peer = None
            box.life += 1
        for box in boxes:
            for link in list(box.links):
                self._break(box, link, "the connection was closed")

    def wire(self, a: Box, b: Box) -> None:
        """Join two peers without anybody dialling."""
        self._stand(a, b, b.address)

    def split(self, side: Iterable[Box]) -> None:
        """Nothing passes between `side` and the rest any more."""
        names = {box.name for box in side}
        self.cut = lambda a, b: (a.name in names) != (b.name in names)
        for box in self.boxes.values():
            for link, (other, _) in list(box.links.items()):
                if link in box.links and self.cut(box, other):
                    self._break(box, link, "the network was cut")
                    self.happen(box, LinkDown(link, "the network was cut"), ROUND)

    def heal(self) -> None:
        self.cut = lambda a, b: False

    # time

    def later(self, delay: int, action: Callable[[], None]) -> None:
        self._count += 1
        heappush(self._heap, (self.now + delay, self._count, action))

    def happen(self, box: Box, event: Event, delay: int = 0) -> None:
        self.later(delay, partial(self._deliver, box, box.life, event))

    def run(self, *, rounds: int = 0, seconds: float = 0) -> None:
        end = self.now + rounds * ROUND + round(seconds * SECOND)
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
        self.now = end

    def until(self, condition: Callable[[], bool], *, seconds: float) -> float:
        """Run until the condition holds; return after how many seconds."""
        start = self.now
        while not condition():
            assert self.now - start < seconds * SECOND, f"not within {seconds} s"
            self.run(rounds=1)
        return (self.now - start) / SECOND

    def _deliver(self, box: Box, life: int, event: Event) -> None:
        if box.peer is None or box.life != life:
            return
        if isinstance(event, Ticked):
            box.armed = None
        for effect in box.peer.handle(event, self.now):
            self._perform(box, effect)
        due = box.peer.deadline_us()
        if due is not None and (box.armed is None or due < box.armed):
            box.armed = due
            self.happen(box, Ticked(), max(0, due - self.now))

    def _perform(self, box: Box, effect: Effect) -> None:
        match effect:
            case Send(link=link, frame=parts):
                if link in box.links and box.name not in self.silent:
                    other, far = box.links[link]
                    frame = b"".join(parts)
                    if self.recording:
                        box.frames.append((self.now, other.name, frame))
                    self.later(ROUND, partial(self._arrive, other, far, frame))
            case Dial(address=address):
                self.later(ROUND, partial(self._dialled, box, box.life, address))
            case Close(link=link, reason=reason):
                if link in box.links:
                    self._break(box, link, "the neighbour closed the link")
                    self.happen(box, LinkDown(link, reason))
            case Remember(peers=peers):
                box.remembered = peers
            case Report():
                box.reports.append(effect)

    def _arrive(self, box: Box, link: int, frame: bytes) -> None:
        if link in box.links:
            self._deliver(box, box.life, Received(link, frame))

    # links

    def _dialled(self, box: Box, life: int, line: str) -> None:
        if box.life != life or box.peer is None:
            return
        address, _, rest = line.removeprefix("mfd://").partition("/")
        other = self.by_address.get(address)
        reason = ""
        if other is None or other.peer is None or self.cut(box, other):
            reason = "nobody listens there"
        elif other is box:
            reason = "this is the peer itself"
        elif rest and not rest.startswith(other.key.public_key.hex()):
            reason = "another peer answers there"
        elif any(end is other for end, _ in box.links.values()):
            reason = "a link to this peer stands"
        if reason:
            stands = other is not None and any(end is other for end, _ in box.links.values())
            standing = other.key.public_key if other is not None and stands else b""
            self._deliver(box, life, DialFailed(line, reason, standing))
        else:
            assert other is not None
            self._stand(box, other, line)

    def _stand(self, box: Box, other: Box, line: str) -> None:
        self._links += 2
        here, there = self._links, self._links + 1
        box.links[here] = (other, there)
        other.links[there] = (box, here)
        self._deliver(box, box.life, LinkUp(here, other.key.public_key, line, True))
        self._deliver(other, other.life, LinkUp(there, box.key.public_key, box.address, False))

    def _break(self, box: Box, link: int, reason: str) -> None:
        """Take a link away; the other end learns it one round later, after what is under way."""
        other, far = box.links.pop(link)

        def learn() -> None:
            if other.links.pop(far, None) is not None:
                self._deliver(other, other.life, LinkDown(far, reason))

        self.later(ROUND, learn)

    # looking

    def live(self) -> list[Box]:
        return [box for box in self.boxes.values() if box.alive]

    def active(self, box: Box) -> set[int]:
        """Neighbours by number."""
        assert box.peer is not None
        names = {b.key.public_key: b.name for b in self.boxes.values()}
        return {names[peer] for peer in box.peer.members.views.active}

    def graph(self) -> nx.Graph:
        """Who counts whom as a neighbour, both agreeing."""
        graph = nx.Graph()
        sees = {box.name: self.active(box) for box in self.live()}
        graph.add_nodes_from(sees)
        graph.add_edges_from((a, b) for a, s in sees.items() for b in s if a in sees.get(b, ()))
        return graph

    def islands(self) -> int:
        return nx.number_connected_components(self.graph())

    def check_views(self) -> None:
        """S12: bounded, no self, views apart; one-sided for two round trips at most."""
        one_sided = self._one_sided()
        self.run(rounds=4)
        assert not one_sided & self._one_sided()
        for box in self.live():
            assert box.peer is not None
            views, config = box.peer.members.views, self.config
            assert len(views.passive) <= config.passive_max
            if config.open_network:
                assert len(views.active) <= config.active_max
            assert box.key.public_key not in {*views.active, *views.passive}
            assert not set(views.active) & set(views.passive)

    def _one_sided(self) -> set[tuple[int, int, int]]:
        """Pairs (a, b) and the link, where a counts b as a neighbour and b does not count a."""
        found = set()
        for box in self.live():
            assert box.peer is not None
            for slot in box.peer.members.views.active.values():
                other = box.links[slot.link][0] if slot.link in box.links else None
                theirs = other.peer.members.views.active if other and other.peer else {}
                if box.key.public_key not in theirs:
                    found.add((box.name, other.name if other else -1, slot.link))
        return found
