"""A small world for routing alone: one heap, seeded delays, links and holders that come and go.

Bodies travel as MessagePack bytes. After every event the world checks that no next hop that changed
lies on a loop, and that no peer's feasibility distance lies above anything it advertised.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count

import msgpack
import networkx as nx
from blake3 import blake3

from mfd.core.config import Config
from mfd.core.frames import Class, SeqnoRequest, Update
from mfd.core.routestate import is_nearer
from mfd.core.routetable import RouteTable
from mfd.core.routing import Routes
from mfd.core.sources import open_record

SECOND = 1_000_000


class KeyedHash:
    """Stands in for Ed25519: anybody could forge it, which no test here wants."""

    def __init__(self, number: int) -> None:
        self.public_key = blake3(b"peer" + number.to_bytes(4, "little")).digest()

    def sign(self, domain: str, body: bytes) -> bytes:
        return blake3(self.public_key + domain.encode() + b"\0" + body).digest(length=64)


def verify(public_key: bytes, domain: str, body: bytes, signature: bytes) -> bool:
    return blake3(public_key + domain.encode() + b"\0" + body).digest(length=64) == signature


class Broken(AssertionError):
    """A rule of routing does not hold."""


class World:
    """Peers 0..n-1 on a graph whose edges carry `thin` and `bulk` costs."""

    def __init__(
        self,
        graph: nx.Graph,
        seed: int,
        *,
        config: Config,
        table: type[RouteTable] = RouteTable,
    ) -> None:
        self.graph = graph
        self.config = config
        self.now = 0
        self.dice = random.Random(seed)
        self.loops = self.changes = self.frames = self.entries = self.asked = 0
        self._table_type = table
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = count()
        self._link_numbers = count(1)
        self._woken: dict[int, int] = {}
        self._boots: dict[int, int] = defaultdict(int)
        self._arrives: dict[int, int] = {}
        self._ends: dict[int, tuple[int, int, int]] = {}  # link -> node, neighbour, its link there
        self.up: dict[tuple[int, int], tuple[int, int]] = {}
        self.held: dict[str, set[int]] = defaultdict(set)
        self._hops: dict[tuple[int, str, bytes, Class], int | None] = {}
        self._best_said: dict[tuple[int, str, bytes, Class], tuple[int, int]] = {}
        self.keys = {node: KeyedHash(node) for node in graph}
        self.node_of = {key.public_key: node for node, key in self.keys.items()}
        self.peers: dict[int, Routes] = {}
        for node in graph:
            self._start(node)
        for a, b in graph.edges:
            self.link_up(a, b)

    # what happens

    def _start(self, node: int) -> None:
        self._boots[node] += 1
        key = self.keys[node]
        peer = Routes(
            key.public_key, self.config, signer=key, verify=verify, boot=self._boots[node]
        )
        peer._table = self._table_type(key.public_key, self.config)
        self.peers[node] = peer

    def link_up(self, a: int, b: int) -> None:
        a, b = min(a, b), max(a, b)
        if (a, b) in self.up:
            return
        costs = self.graph.edges[a, b]
        numbers = next(self._link_numbers), next(self._link_numbers)
        self.up[a, b] = numbers
        for node, other, link, far in ((a, b, *numbers), (b, a, *numbers[::-1])):
            self._ends[link] = (node, other, far)
            self.peers[node].link_up(
                link,
                costs["thin"],
                self.now,
                peer=self.keys[other].public_key,
                bulk_cost=costs["bulk"],
            )
            self._after(node)

    def link_down(self, a: int, b: int) -> None:
        """Each end learns it in its own time; what is under way is lost."""
        numbers = self.up.pop((min(a, b), max(a, b)), None)
        for link in numbers or ():
            node = self._ends[link][0]
            peer = self.peers[node]
            self._ends.pop(link)

            def learn(node: int = node, link: int = link, peer: Routes = peer) -> None:
                if self.peers[node] is peer:
                    peer.link_down(link, self.now)
                    self._after(node)

            self.later(self.dice.randrange(50_000), learn)

    def restart(self, node: int) -> None:
        """The peer forgets everything but its key and its boot counter."""
        links = [pair for pair in self.up if node in pair]
        for pair in links:
            self.link_down(*pair)
        for key in [key for key in self._hops if key[0] == node]:
            del self._hops[key]
        for key in [key for key in self._best_said if key[0] == node]:
            del self._best_said[key]
        self._start(node)
        for name, nodes in self.held.items():
            if node in nodes:
                self.peers[node].hold(name, 10, self.now)
        for pair in links:
            self.later(200_000, lambda pair=pair: self.link_up(*pair))

    def hold(self, node: int, name: str) -> None:
        self.held[name].add(node)
        self.peers[node].hold(name, 10 + node, self.now)
        self._after(node)

    def unhold(self, node: int, name: str) -> None:
        self.held[name].discard(node)
        self.peers[node].unhold(name, self.now)
        self._after(node)

    def later(self, delay_us: int, action: Callable[[], None]) -> None:
        heappush(self._heap, (self.now + delay_us, next(self._order), action))

    def run(self, for_us: int) -> None:
        end = self.now + for_us
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
        self.now = end

    def _after(self, node: int) -> None:
        """Send what a peer has to say, check it, and wake it when it wants."""
        peer = self.peers[node]
        for link, frame in peer.outgoing(self.now):
            self.frames += 1
            self.asked += isinstance(frame, SeqnoRequest)
            if isinstance(frame, Update):
                self._check_said(node, frame)
            if link in self._ends:
                self._send(link, frame)
        self._check_loops(node)
        due = peer.deadline_us()
        if due is not None and not self.now <= self._woken.get(node, -1) <= due:
            self._woken[node] = max(due, self.now)
            self.later(self._woken[node] - self.now, lambda: self._wake(node))

    def _wake(self, node: int) -> None:
        if self._woken.get(node) == self.now:
            self._woken.pop(node)
        self._after(node)

    def _send(self, link: int, frame: Update | SeqnoRequest) -> None:
        _, other, far = self._ends[link]
        raw = msgpack.packb(frame.body)
        arrives = self.now + self.dice.randrange(10_000, 50_000)
        arrives = self._arrives[link] = max(arrives, self._arrives.get(link, 0))

        def receive() -> None:
            if far in self._ends:
                peer, body = self.peers[other], msgpack.unpackb(raw)
                take = peer.update if isinstance(frame, Update) else peer.request
                take(far, body, self.now)
                self._after(other)

        self.later(arrives - self.now, receive)

    # what must hold

    def _check_said(self, node: int, frame: Update) -> None:
        assert len(msgpack.packb(frame.body)) <= 48 << 10
        assert 1 <= len(frame.body) <= 512
        for entry in frame.body:
            self.entries += 1
            if len(entry) == 3:
                continue
            record = open_record(entry[0], self.config.network, verify)
            for cls in Class:
                if entry[1 + cls] is None:
                    continue
                said = (record.seqno, entry[1 + cls])
                key = (node, record.name, record.holder, cls)
                if key not in self._best_said or is_nearer(said, self._best_said[key]):
                    self._best_said[key] = said
                state = self.peers[node]._table.find(record.name, record.holder)
                limit = state.feasibility[cls] if state else None
                if limit is None or is_nearer(self._best_said[key], limit):
                    raise Broken(f"S9: {node} said {said}, its feasibility distance is {limit}")

    def _check_loops(self, node: int) -> None:
        for name in self.held:
            for holder in self.node_of:
                for cls in Class:
                    hop = self.peers[node].next_hop(name, holder, cls)
                    link = hop.link if hop else None
                    if self._hops.get((node, name, holder, cls)) != link:
                        self._hops[node, name, holder, cls] = link
                        self.changes += 1
                        self._follow(node, name, holder, cls)

    def _follow(self, node: int, name: str, holder: bytes, cls: Class) -> None:
        seen = [node]
        while True:
            hop = self.peers[seen[-1]].next_hop(name, holder, cls)
            if hop is None or hop.link not in self._ends:
                return
            seen.append(self._ends[hop.link][1])
            if seen[-1] in seen[:-1]:
                raise Broken(f"S8: loop {seen} toward {self.node_of[holder]} at {self.now} us")

    def check_nearest(self) -> None:
        """Every peer knows exactly the true k nearest holders of every name, and no dead ones."""
        live = nx.Graph()
        live.add_nodes_from(self.graph)
        live.add_edges_from((a, b, self.graph.edges[a, b]) for a, b in self.up)
        for cls in Class:
            far = dict(nx.all_pairs_dijkstra_path_length(live, weight=cls.name.lower()))
            for name, nodes in self.held.items():
                for node, peer in self.peers.items():
                    true = sorted(
                        (far[node][h], self.keys[h].public_key) for h in nodes if h in far[node]
                    )[: self.config.sources_per_name]
                    known = [(s.metric, s.holder) for s in peer.holders(name, cls)]
                    if known[: len(true)] != true or (not true and known):
                        raise Broken(f"{node} knows {known[:3]} of {name}, the truth is {true[:3]}")

    def check_nobody_starves(self) -> None:
        """Every peer connected to a holder of a name has a route to one."""
        live = nx.Graph(list(self.up))
        live.add_nodes_from(self.graph)
        for part in nx.connected_components(live):
            for name, nodes in self.held.items():
                for node in part if nodes & part else ():
                    for cls in Class:
                        if not self.peers[node].holders(name, cls):
                            raise Broken(f"{node} has no route to {name}")
