"""Circuits: byte streams between two peers, forwarded by relays that neither open nor store them.

Rules of this file: it knows labels, credit and queues; it does not know what the bytes mean. Every
byte in a queue here was granted as credit before, so queues are bounded by the windows granted.
Source: spec/transfer.md, sections "Circuits" and "Credit".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from mfd.core.bucket import Bucket
from mfd.core.circuit import Accept, Circuit, Leg, Listener, NextHop, Refusal, Trails
from mfd.core.context import Context
from mfd.core.detours import Detours, Onward, Way
from mfd.core.flow import Flow
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
    encode_frame,
)

__all__ = ["Circuits"]

HOPS_MAX = 64
DEAD_ENDS = (ResetCode.NO_ROUTE, ResetCode.LOOP, ResetCode.STALLED, ResetCode.LINK_DOWN)
FAILURES = (*DEAD_ENDS, ResetCode.HOPS, ResetCode.UNKNOWN)  # of a way, not of who is dialled
CREDIT_BYTES_MAX = (1 << 31) - 1  # more says nothing
BUSY_RETRY_US = 1_000_000


class Circuits(Flow):
    """All circuits that end at or pass through this peer."""

    def __init__(
        self, ctx: Context, next_hop: NextHop, accept: Accept, trails: Trails | None = None
    ) -> None:
        super().__init__(ctx)
        self._trails = trails
        self._detours = Detours(ctx)
        self._next_hop = next_hop
        self._accept = accept
        self._links: dict[int, dict[int, Circuit]] = {}  # link -> label -> circuit
        self._labels: dict[int, int] = {}  # link -> next own label, odd where we dialled
        self._neighbours: dict[bytes, int] = {}
        self._nonces: set[bytes] = set()
        self._opens: dict[int, Bucket] = {}
        self._private: set[int] = set()  # links that nobody but the neighbour can read
        self._sweeping = False

    def __len__(self) -> int:
        return len(self._nonces)

    def carries(self, link: int) -> bool:
        """Whether circuits would break with this link."""
        return bool(self._links.get(link))

    # links

    def link_up(
        self,
        link: int,
        peer: bytes,
        *,
        outbound: bool,
        paced: bool = False,
        private: bool = False,
    ) -> None:
        """A neighbour is there; `paced` and `private` as in `LinkUp`."""
        config = self._ctx.config
        self._flow_over(link, paced=paced)
        self._opens[link] = Bucket(config.opens_per_s, config.opens_burst)
        if private:
            self._private.add(link)
        self._links[link] = {}
        self._labels[link] = 1 if outbound else 2
        self._neighbours[peer] = link

    def link_down(self, link: int) -> None:
        """A neighbour is gone, and with it every circuit over the link."""
        broken = list(self._links.pop(link, {}).values())
        self._labels.pop(link, None)
        self._opens.pop(link, None)
        self._private.discard(link)
        self._flow_ends(link)
        self._neighbours = {p: n for p, n in self._neighbours.items() if n != link}
        # last, because who listens may open a circuit at once: the link must be out of the tables
        for circuit in broken:
            self.drop(circuit, ResetCode.LINK_DOWN, origin=link)

    def is_private(self, target: bytes) -> bool:
        """Whether a peer is a neighbour over a link that nobody else can read."""
        return self._neighbours.get(target) in self._private

    def came_private(self, circuit: Circuit) -> bool:
        """Whether a circuit that was opened here came from such a neighbour itself."""
        return circuit.hops == 1 and circuit.first.link in self._private

    # ends

    def connect(
        self, target: bytes, cls: Class, via: Via | None, handshake: bytes, listener: Listener
    ) -> Circuit | None:
        """Open a circuit toward a peer, over the route to (via.name, via.holder).

        Without such a route, a trail that SEEK has found is taken; where a way has failed lately,
        another one. Returns None where there is no way now.
        """
        way = self._detours.choose(target, self._ways(target, via, cls))
        if way is None:
            return None
        (link, onward, route), sought = way
        circuit = self._add(link, self._label(link), cls, self._ctx.dice.bytes(16))
        circuit.listener = listener
        circuit.target, circuit.sought = target, sought
        begin = (circuit.first.label, target, onward, route, circuit.nonce)
        self._ctx.send(link, encode_frame(Open(*begin, 1, cls, handshake)))
        return circuit

    def _ways(self, target: bytes, via: Via | None, cls: Class) -> Iterator[Way]:
        """Yield ways to a peer, and whether SEEK has found them: the pinned one comes first."""
        pinned = self._toward(target, via, cls)
        if pinned is not None:
            yield pinned, False
        if target in self._neighbours:
            return
        if pinned is not None and via is not None and self._trails is not None:
            for link in self._trails.links_toward(via, cls):
                if link in self._links and link != pinned[0]:
                    yield (link, via, ()), False
        along = self._along(target, cls)
        if along is not None:
            yield along, True

    def _onward(self, link: int, frame: Open) -> Iterator[Way]:
        """Yield ways on from a relay: as it would go itself, then others nearer than it says."""
        hop = self._toward(frame.target, frame.via, frame.cls, frame.route)
        if hop is not None and hop[0] != link:
            yield hop, False
        if hop is not None and hop[1] is not None and not frame.route and self._trails is not None:
            for other in self._trails.links_toward(hop[1], frame.cls):
                if other in self._links and other not in (link, hop[0]):
                    yield (other, hop[1], ()), False

    def _toward(
        self, target: bytes, via: Via | None, cls: Class, route: tuple[bytes, ...] = ()
    ) -> Onward | None:
        """The neighbour itself, the next hop of the route while it leads on, then `via`."""
        if target in self._neighbours:
            return self._neighbours[target], None, ()
        if route:
            for peer, link in self._neighbours.items():
                if peer.startswith(route[0]):
                    return link, via, route[1:]
        hop = self._next_hop(via, cls) if via is not None else None
        return (*hop, ()) if hop is not None and hop[0] in self._links else None

    def _along(self, target: bytes, cls: Class) -> Onward | None:
        avoid = self._detours.avoided(target)
        trail = self._trails.way(target, avoid) if self._trails is not None else None
        return None if trail is None else self._toward(target, trail[1], cls, trail[0])

    def _label(self, link: int) -> int:
        label = self._labels[link]
        self._labels[link] += 2
        return label

    def _add(self, link: int, label: int, cls: Class, nonce: bytes) -> Circuit:
        circuit = Circuit(self, cls, nonce, Leg(link, label))
        circuit.since_us = self._ctx.now_us
        if label % 2 != self._labels[link] % 2:  # opened over there: what may come is set aside
            circuit.reserved = self._asked(link, cls)
            self._reserve.take(link, circuit.reserved)
        self._links[link][label] = circuit
        self._nonces.add(nonce)
        self._ctx.after(self._ctx.config.opening_us, partial(self._opening_over, circuit))
        if not self._sweeping:
            self._sweeping = True
            self._ctx.after(self._ctx.config.stalled_us // 4, self._sweep)
        return circuit

    # frames

    def on_frame(self, link: int, frame: Open | Opened | Data | Credit | End | Reset) -> None:
        """Take in what a neighbour says of a circuit."""
        match frame:
            case Data():
                self.on_data(link, frame)
            case Credit():
                self.on_credit(link, frame)
            case Open():
                self.on_open(link, frame)
            case Opened():
                self.on_opened(link, frame)
            case End():
                self.on_end(link, frame)
            case Reset():
                self.on_reset(link, frame)

    def on_open(self, link: int, frame: Open) -> None:
        """A neighbour wants a circuit to us or through us."""
        refusal = self._why_not(link, frame)
        if refusal is not None:
            self._send_reset(link, frame.circuit, refusal)
            return
        if frame.target == self._ctx.me:
            self._open_here(link, frame)
            return
        way = self._detours.choose(frame.target, self._onward(link, frame))
        if way is None:
            self._send_reset(link, frame.circuit, ResetCode.NO_ROUTE)
            return
        onward_link, onward, route = way[0]
        circuit = self._add(link, frame.circuit, frame.cls, frame.nonce)
        circuit.second = leg = Leg(onward_link, self._label(onward_link))
        self._links[onward_link][leg.label] = circuit
        circuit.beyond = frame.target
        self._ctx.count("circuits_relayed")
        end, same = (leg.label, frame.target, onward, route), (frame.cls, frame.handshake)
        self._ctx.send(onward_link, encode_frame(Open(*end, frame.nonce, frame.hops + 1, *same)))

    def _why_not(self, link: int, frame: Open) -> ResetCode | None:
        config, table = self._ctx.config, self._links[link]
        if frame.circuit in table or frame.circuit % 2 == self._labels[link] % 2:
            return ResetCode.REFUSED  # a label in use, or one that is ours to give
        if frame.nonce in self._nonces:
            return ResetCode.LOOP
        if frame.hops > HOPS_MAX:
            return ResetCode.HOPS
        same = sum(1 for c in table.values() if c.cls is frame.cls)
        thin = frame.cls is Class.THIN
        if same >= (config.thin_per_link_max if thin else config.bulk_per_link_max):
            return ResetCode.BUSY
        lent = self._reserve.could(link, self._asked(link, frame.cls))
        return None if lent and self._opens[link].take(self._ctx.now_us) else ResetCode.BUSY

    def _open_here(self, link: int, frame: Open) -> None:
        circuit = self._add(link, frame.circuit, frame.cls, frame.nonce)
        circuit.open, circuit.hops = True, frame.hops
        try:
            listener = self._accept(circuit, frame.handshake)
        except Refusal as refusal:
            self.drop(circuit, refusal.code, origin=None)
            return
        circuit.listener = listener
        self._ctx.send(link, encode_frame(Opened(frame.circuit, circuit.answer, 1, 0, 0)))
        self._grant(circuit, circuit.first)
        listener.opened(circuit)

    def on_opened(self, link: int, frame: Opened) -> None:
        """The target has answered."""
        circuit, leg = self._find(link, frame.circuit)
        if circuit is None or circuit.open or leg is None:
            return
        circuit.open, circuit.hops = True, frame.hops
        self._grant(circuit, leg)
        if circuit.second is None:
            circuit.answer, circuit.rate_behind = frame.handshake, frame.rate
            if circuit.listener is not None:
                circuit.listener.opened(circuit)
            return
        first = circuit.first
        onward = Opened(first.label, frame.handshake, frame.hops + 1, *self._beyond(link, frame))
        self._ctx.send(first.link, encode_frame(onward))
        self._grant(circuit, first)

    def on_data(self, link: int, frame: Data) -> None:
        """Bytes: forward them as credit allows, or deliver them."""
        circuit, leg = self._find(link, frame.circuit)
        if circuit is None or leg is None:
            self._send_reset(link, frame.circuit, ResetCode.UNKNOWN)
            return
        size = len(frame.payload)
        if not circuit.open or size > leg.room or leg.ended_in:
            self._ctx.count("credit_violations")
            self.drop(circuit, ResetCode.REFUSED, origin=None, tell=True)
            return
        leg.room -= size
        self._measure(circuit, leg, size)
        other = self._other(circuit, leg)
        if other is not None:
            other.pass_on(frame.payload)
            self.pump(circuit, other)
            other.settle()
        elif circuit.listener is not None:
            circuit.listener.received(circuit, frame.payload)

    def on_credit(self, link: int, frame: Credit) -> None:
        """The neighbour has room again."""
        circuit, leg = self._find(link, frame.circuit)
        if circuit is None or leg is None:
            return
        if not leg.least:  # the whole window: more than half of it comes back in any case (T-05)
            leg.least = min(frame.amount // 2, self._ctx.config.data_bytes_max)
        leg.credit = min(leg.credit + frame.amount, CREDIT_BYTES_MAX)
        self.pump(circuit, leg)
        self._dry(circuit, leg)

    def on_end(self, link: int, frame: End) -> None:
        """The other side has said all."""
        circuit, leg = self._find(link, frame.circuit)
        if circuit is None or leg is None:
            return
        leg.ended_in = True
        other = self._other(circuit, leg)
        if other is None:
            leg.ending = True  # we answer an END with ours, after what is queued
            self.pump(circuit, leg)
        else:
            other.ending = True
            self.pump(circuit, other)

    def on_reset(self, link: int, frame: Reset) -> None:
        """The circuit broke further on."""
        circuit, _ = self._find(link, frame.circuit)
        if circuit is not None:
            self.drop(circuit, frame.code, origin=link)

    # flow

    def _find(self, link: int, label: int) -> tuple[Circuit | None, Leg | None]:
        circuit = self._links.get(link, {}).get(label)
        if circuit is None:
            return None, None
        if (circuit.first.link, circuit.first.label) == (link, label):
            return circuit, circuit.first
        return circuit, circuit.second

    def _close_if_ended(self, circuit: Circuit) -> None:
        legs = [leg for leg in (circuit.first, circuit.second) if leg is not None]
        if not circuit.gone and all(leg.ended_in and leg.ended_out for leg in legs):
            self._forget(circuit)
            listener, circuit.listener = circuit.listener, None
            if listener is not None:
                listener.closed(circuit, None)

    # endings

    def drop(
        self, circuit: Circuit, code: ResetCode, *, origin: int | None, tell: bool = False
    ) -> None:
        """End a circuit at once; every side but the one it came from is told."""
        if circuit.gone:
            return
        self._forget(circuit)
        if circuit.target and code in FAILURES:
            self._detours.failed(circuit.target, circuit.first.link)
        elif (leg := circuit.second) and not circuit.open and code in DEAD_ENDS:
            self._detours.failed(circuit.beyond, leg.link)
        if circuit.sought and self._trails is not None and code in DEAD_ENDS and not circuit.open:
            self._trails.broke(circuit.target)
        listener, circuit.listener = circuit.listener, None
        for leg in (circuit.first, circuit.second):
            if leg is not None and leg.link != origin and leg.link in self._links:
                self._send_reset(leg.link, leg.label, code)
        if listener is not None and (origin is not None or tell):
            listener.closed(circuit, code)

    def _forget(self, circuit: Circuit) -> None:
        circuit.gone = True
        if circuit.reserved:
            self._reserve.give(circuit.first.link, circuit.reserved)
            circuit.reserved = 0
        self._nonces.discard(circuit.nonce)
        for leg in (circuit.first, circuit.second):
            if leg is not None:
                self._links.get(leg.link, {}).pop(leg.label, None)

    def _send_reset(self, link: int, label: int, code: ResetCode) -> None:
        retry_us = BUSY_RETRY_US if code is ResetCode.BUSY else 0
        self._ctx.send(link, encode_frame(Reset(label, code, retry_us)))

    def _opening_over(self, circuit: Circuit) -> None:
        if not circuit.open:
            self.drop(circuit, ResetCode.STALLED, origin=None, tell=True)

    def _sweep(self) -> None:
        """Reset circuits that have not moved for too long; thin ones may stand idle."""
        limit = self._ctx.now_us - self._ctx.config.stalled_us
        seen = {id(c): c for table in self._links.values() for c in table.values()}
        for circuit in seen.values():
            legs = (circuit.first, circuit.second)
            waiting = any(leg is not None and (leg.queued or leg.ending) for leg in legs)
            if not waiting and circuit.cls is Class.THIN:
                circuit.since_us = self._ctx.now_us
            elif circuit.since_us < limit:
                self.drop(circuit, ResetCode.STALLED, origin=None, tell=True)
        self._sweeping = bool(self._nonces)
        if self._sweeping:
            self._ctx.after(self._ctx.config.stalled_us // 4, self._sweep)
