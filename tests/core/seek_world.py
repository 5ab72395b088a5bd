"""Routing, SEEK and circuits of many peers on a graph: one heap, a fixed delay a hop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from itertools import count, pairwise

from mfd.core import ways
from mfd.core.circuit import Circuit
from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.effects import Send
from mfd.core.frames import (
    Class,
    Credit,
    Found,
    Open,
    Opened,
    Reset,
    Seek,
    SeqnoRequest,
    Update,
    Via,
    decode_frame,
    encode_frame,
)
from mfd.core.routing import Routes
from mfd.core.seek import Seeker
from mfd.core.transfer import Circuits
from mfd.sim.keys import SimKey, sim_verify
from tests.core.circuit_world import Ear

HOP_US = 10_000
SECOND = 1_000_000


class Node:
    def __init__(self, world: SeekWorld, name: str) -> None:
        self.name = name
        self.key = SimKey(name.encode())
        self.id = self.key.public_key
        config = world.config
        self.ctx = Context(signer=self.key, verify=sim_verify, config=config, seed=name.encode())
        self.routes = Routes(self.id, config, signer=self.key, verify=sim_verify, boot=1)
        self.seeker = Seeker(self.ctx, lambda: self.routes)
        trails = ways.Trails(self.ctx, self.seeker, lambda: self.routes)
        self.circuits = Circuits(self.ctx, self._next_hop, self._accept, trails)
        self.ears: list[Ear] = []
        self.links: dict[int, str] = {}
        self.sent: list[tuple[int, int, object, int]] = []  # when, link, frame, bytes

    def _next_hop(self, via: Via, cls: Class) -> tuple[int, Via] | None:
        return ways.next_hop(self.routes, via, cls)

    def _accept(self, circuit: Circuit, handshake: bytes) -> Ear:
        self.ears.append(Ear())
        return self.ears[-1]

    def seek(self, *names: str, but: Iterable[bytes] = ()) -> list[bool]:
        said: list[bool] = []
        self.seeker.seek(names, but, said.append)
        return said

    def connect(self, other: Node) -> Ear | None:
        """Open a circuit as the courier does: by routing, else by what SEEK has found."""
        ear = Ear()
        via = ways.via(self.routes, other.id, Class.THIN)
        circuit = self.circuits.connect(other.id, Class.THIN, via, b"", ear)
        return ear if circuit is not None else None

    def found(self, *names: str) -> set[bytes]:
        return {source.holder for source in self.seeker.sources(names)}

    def of(self, *kinds: type) -> list[object]:
        return [frame for _, _, frame, _ in self.sent if isinstance(frame, kinds)]


class SeekWorld:
    def __init__(self, edges: Iterable[tuple[str, str]], config: Config | None = None) -> None:
        self.config = config or Config()
        self.now = 0
        self.nodes: dict[str, Node] = {}
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._ticks: dict[str, int] = {}
        edges = list(edges)
        for name in sorted({name for edge in edges for name in edge}):
            self.nodes[name] = Node(self, name)
        for number, (a, b) in enumerate(edges, 1):
            self.link(number, a, b)

    def link(self, number: int, a: str, b: str, cost: int = 100) -> None:
        for one, two, outbound in ((a, b, True), (b, a, False)):
            node, other = self.nodes[one], self.nodes[two]
            node.links[number] = two
            node.circuits.link_up(number, other.id, outbound=outbound)
            node.seeker.link_up(number, other.id, cost)
            node.routes.link_up(number, cost, self.now, peer=other.id)
        self.touch(a, b)

    def cut(self, a: str, b: str) -> None:
        number = next(n for n, name in self.nodes[a].links.items() if name == b)
        for name in (a, b):
            node = self.nodes[name]
            node.ctx.now_us = self.now
            del node.links[number]
            node.seeker.link_down(number)
            node.routes.link_down(number, self.now)
            node.circuits.link_down(number)
        self.touch(a, b)

    def hold(self, name: str, *nodes: str) -> None:
        for node in nodes:
            self.nodes[node].routes.hold(name, 10, self.now)
        self.touch(*nodes)

    def touch(self, *names: str) -> None:
        for name in names:
            self._later(0, lambda name=name: self._settle(name))

    def run(self, seconds: float = 2) -> None:
        end = self.now + int(seconds * SECOND)
        self.touch(*self.nodes)  # what a test has begun since
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
        self.now = end
        for node in self.nodes.values():
            node.ctx.now_us = end  # for what a test calls next

    def _later(self, delay_us: int, action: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + delay_us, next(self._order), action))

    def _settle(self, name: str) -> None:
        """Run what is due, send what is to be sent, wake again when something is due."""
        node = self.nodes[name]
        node.ctx.now_us = self.now
        node.ctx.run_timers()
        for link, frame in node.routes.outgoing(self.now):
            if link in node.links:
                node.ctx.send(link, encode_frame(frame))
        for effect in node.ctx.take():
            if isinstance(effect, Send) and effect.link in node.links:
                raw = b"".join(effect.frame)
                node.sent.append((self.now, effect.link, decode_frame(raw), len(raw) + 4))
                self._later(HOP_US, lambda s=effect.link, r=raw, n=node: self._arrive(n, s, r))
        dues = [d for d in (node.ctx.deadline_us(), node.routes.deadline_us()) if d is not None]
        if dues and not self.now < self._ticks.get(name, -1) <= min(dues):
            self._ticks[name] = max(min(dues), self.now + 1)
            self._later(self._ticks[name] - self.now, lambda: self._settle(name))

    def _arrive(self, sender: Node, link: int, raw: bytes) -> None:
        if link not in sender.links:
            return
        node = self.nodes[sender.links[link]]
        node.ctx.now_us = self.now
        match decode_frame(raw):
            case Update(body=body):
                node.routes.update(link, body, self.now)
            case SeqnoRequest(body=body):
                node.routes.request(link, body, self.now)
            case Seek(body=body):
                node.seeker.on_seek(link, body)
            case Found(body=body):
                node.seeker.on_found(link, body)
            case Open() as frame:
                node.circuits.on_open(link, frame)
            case Opened() as frame:
                node.circuits.on_opened(link, frame)
            case Credit() as frame:
                node.circuits.on_credit(link, frame)
            case Reset() as frame:
                node.circuits.on_reset(link, frame)
        self._settle(node.name)

    def counted(self, kind: type) -> Counter[str]:
        return Counter({name: len(node.of(kind)) for name, node in self.nodes.items()})


def line(*names: str) -> list[tuple[str, str]]:
    return list(pairwise(names))
