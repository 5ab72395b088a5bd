"""Circuits without peers: nodes on a line, links as queues, and a bookkeeper of every credit."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass, field
from itertools import pairwise

from mfd.core.circuit import Circuit, Refusal
from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.effects import Send
from mfd.core.frames import (
    Class,
    Credit,
    Data,
    End,
    Open,
    Opened,
    Reset,
    ResetCode,
    Via,
    decode_frame,
)
from mfd.core.transfer import Circuits
from mfd.sim.keys import SimKey, sim_verify


@dataclass
class Ear:
    """An end of a circuit that remembers everything."""

    consume: bool = True
    got: bytearray = field(default_factory=bytearray)
    said: list[object] = field(default_factory=list)
    circuit: Circuit | None = None

    def opened(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.said.append("opened")

    def received(self, circuit: Circuit, payload: memoryview) -> None:
        self.got += payload
        if self.consume:
            circuit.consumed(len(payload))

    def writable(self, circuit: Circuit) -> None:
        """Said too often to be remembered."""

    def closed(self, circuit: Circuit, code: ResetCode | None) -> None:
        self.said.append(code)


class Node:
    def __init__(self, line: Line, name: str, config: Config) -> None:
        self.line = line
        self.name = name
        self.key = SimKey(name.encode())
        self.ctx = Context(signer=self.key, verify=sim_verify, config=config, seed=name.encode())
        self.circuits = Circuits(self.ctx, self.next_hop, self.accept)
        self.ears: list[Ear] = []
        self.refuse: ResetCode | None = None
        self.consume = True

    @property
    def id(self) -> bytes:
        return self.key.public_key

    def next_hop(self, via: Via, cls: Class) -> tuple[int, Via] | None:
        """Toward the end of the line whose name `via` gives; a metric per hop left."""
        link = self.line.toward(self.name, via.name)
        return None if link is None else (link, Via(via.name, via.holder, 0, via.metric - 1))

    def accept(self, circuit: Circuit, handshake: bytes) -> Ear:
        if self.refuse is not None:
            raise Refusal(self.refuse)
        circuit.answer = b"answer to " + handshake
        self.ears.append(Ear(self.consume))
        return self.ears[-1]

    def connect(self, target: str, cls: Class = Class.BULK) -> tuple[Circuit | None, Ear]:
        ear = Ear(self.consume)
        other = self.line.nodes[target]
        via = Via(target, other.id, 0, 100)
        return self.circuits.connect(other.id, cls, via, b"hello", ear), ear


class Line:
    """Nodes in a row; link i joins node i and node i + 1."""

    def __init__(self, names: str, config: Config | None = None) -> None:
        self.config = config or Config(
            bulk_window_bytes=4_096, bulk_window_max_bytes=4_096, thin_window_bytes=512
        )
        self.nodes = {name: Node(self, name, self.config) for name in names}
        self.order = names
        self.queues: dict[tuple[str, int], deque[bytes]] = defaultdict(deque)
        self.credit: dict[tuple[int, int, str], int] = defaultdict(int)  # what a sender may send
        self.most_queued = 0
        self.largest = 0
        self.frames: list[tuple[str, object]] = []
        for i, (a, b) in enumerate(pairwise(names)):
            self.nodes[a].circuits.link_up(i, self.nodes[b].id, outbound=True)
            self.nodes[b].circuits.link_up(i, self.nodes[a].id, outbound=False)

    def toward(self, here: str, target: str) -> int | None:
        at, to = self.order.index(here), self.order.index(target)
        return None if at == to else at if to > at else at - 1

    def other(self, name: str, link: int) -> Node:
        pair = self.order[link : link + 2]
        return self.nodes[pair[1] if pair[0] == name else pair[0]]

    def collect(self) -> None:
        """Put what the nodes want sent on the links; no sender may exceed its credit."""
        for node in self.nodes.values():
            for effect in node.ctx.take():
                if not isinstance(effect, Send):
                    continue
                frame = b"".join(effect.frame)
                value = decode_frame(frame)
                self.frames.append((node.name, value))
                if isinstance(value, Data):
                    key = (effect.link, value.circuit, node.name)
                    self.credit[key] -= len(value.payload)
                    self.largest = max(self.largest, len(value.payload))
                    assert self.credit[key] >= 0, f"{node.name} sent more than its credit"
                if isinstance(value, Credit):
                    other = self.other(node.name, effect.link).name
                    self.credit[effect.link, value.circuit, other] += value.amount
                self.queues[node.name, effect.link].append(frame)

    def step(self) -> bool:
        """Deliver one frame from every queue; False when nothing was left."""
        self.collect()
        busy = [key for key, queue in self.queues.items() if queue]
        for name, link in busy:
            self.receive(self.other(name, link), link, self.queues[name, link].popleft())
        return bool(busy)

    def settle(self, limit: int = 100_000) -> None:
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError("the line does not come to rest")

    def receive(self, node: Node, link: int, frame: bytes) -> None:
        circuits = node.circuits
        match decode_frame(frame):
            case Open() as value:
                circuits.on_open(link, value)
            case Opened() as value:
                circuits.on_opened(link, value)
            case Data() as value:
                circuits.on_data(link, value)
            case Credit() as value:
                circuits.on_credit(link, value)
            case End() as value:
                circuits.on_end(link, value)
            case Reset() as value:
                circuits.on_reset(link, value)
        tables = circuits._links.values()
        legs = [leg for t in tables for c in t.values() for leg in (c.first, c.second)]
        if circuits._links and node.name not in (self.order[0], self.order[-1]):
            queued = sum(len(part) for leg in legs if leg for part in leg.queue)
            self.most_queued = max(self.most_queued, queued)

    def cut(self, link: int) -> None:
        a, b = self.order[link : link + 2]
        for name in (a, b):
            self.queues[name, link].clear()
            self.nodes[name].circuits.link_down(link)

    def wait(self, us: int) -> None:
        for node in self.nodes.values():
            node.ctx.now_us += us
            node.ctx.run_timers()
