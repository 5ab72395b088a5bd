"""Circuits: byte streams between two peers, forwarded by relays that neither open nor store them.

Rules of this file: it knows labels, credit and queues; it does not know what the bytes mean. Every
byte in a queue here was granted as credit before, so queues are bounded by the windows granted.
Source: spec/transfer.md, sections "Circuits" and "Credit".
"""

from __future__ import annotations

from functools import partial

from mfd.core.circuit import Accept, Circuit, Leg, Listener, NextHop, Refusal
from mfd.core.context import Context
from mfd.core.effects import Channel, Send
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
    encode_data,
    encode_frame,
)

__all__ = ["Circuits"]

HOPS_MAX = 64
CREDIT_BYTES_MAX = (1 << 31) - 1  # more says nothing
_CHANNELS: dict[Class, Channel] = {Class.THIN: "control", Class.BULK: "bulk"}


class Circuits:
    """All circuits that end at or pass through this peer."""

    def __init__(self, ctx: Context, next_hop: NextHop, accept: Accept) -> None:
        self._ctx = ctx
        self._next_hop = next_hop
        self._accept = accept
        self._links: dict[int, dict[int, Circuit]] = {}  # link -> label -> circuit
        self._labels: dict[int, int] = {}  # link -> next own label, odd where we dialled
        self._neighbours: dict[bytes, int] = {}
        self._nonces: set[bytes] = set()
        self._sweeping = False

    def window(self, cls: Class) -> int:
        """Bytes of credit granted for each direction of a circuit."""
        config = self._ctx.config
        return config.thin_window_bytes if cls is Class.THIN else config.bulk_window_bytes

    def __len__(self) -> int:
        return len(self._nonces)

    def carries(self, link: int) -> bool:
        """Whether circuits would break with this link."""
        return bool(self._links.get(link))

    # links

    def link_up(self, link: int, peer: bytes, *, outbound: bool) -> None:
        """A neighbour is there."""
        self._links[link] = {}
        self._labels[link] = 1 if outbound else 2
        self._neighbours[peer] = link

    def link_down(self, link: int) -> None:
        """A neighbour is gone, and with it every circuit over the link."""
        broken = list(self._links.pop(link, {}).values())
        self._labels.pop(link, None)
        self._neighbours = {p: n for p, n in self._neighbours.items() if n != link}
        # last, because who listens may open a circuit at once: the link must be out of the tables
        for circuit in broken:
            self.drop(circuit, ResetCode.LINK_DOWN, origin=link)

    # ends

    def connect(
        self, target: bytes, cls: Class, via: Via | None, handshake: bytes, listener: Listener
    ) -> Circuit | None:
        """Open a circuit toward a peer, over the route to (via.name, via.holder).

        Returns None where there is no way now.
        """
        hop = self._toward(target, via, cls)
        if hop is None:
            return None
        link, onward = hop
        nonce = self._ctx.dice.bytes(16)
        circuit = self._add(link, self._label(link), cls, nonce)
        circuit.listener = listener
        frame = Open(circuit.first.label, target, onward, (), nonce, 1, cls, handshake)
        self._ctx.send(link, encode_frame(frame))
        return circuit

    def _toward(self, target: bytes, via: Via | None, cls: Class) -> tuple[int, Via | None] | None:
        if target in self._neighbours:
            return self._neighbours[target], None
        hop = self._next_hop(via, cls) if via is not None else None
        return hop if hop is not None and hop[0] in self._links else None

    def _label(self, link: int) -> int:
        label = self._labels[link]
        self._labels[link] += 2
        return label

    def _add(self, link: int, label: int, cls: Class, nonce: bytes) -> Circuit:
        circuit = Circuit(self, cls, nonce, Leg(link, label))
        circuit.moved_us = self._ctx.now_us
        self._links[link][label] = circuit
        self._nonces.add(nonce)
        self._ctx.after(self._ctx.config.opening_us, partial(self._opening_over, circuit))
        if not self._sweeping:
            self._sweeping = True
            self._ctx.after(self._ctx.config.stalled_us // 2, self._sweep)
        return circuit

    # frames

    def on_open(self, link: int, frame: Open) -> None:
        """A neighbour wants a circuit to us or through us."""
        refusal = self._why_not(link, frame)
        if refusal is not None:
            self._send_reset(link, frame.circuit, refusal)
            return
        if frame.target == self._ctx.me:
            self._open_here(link, frame)
            return
        hop = self._toward(frame.target, frame.via, frame.cls)
        if hop is None or hop[0] == link:
            self._send_reset(link, frame.circuit, ResetCode.NO_ROUTE)
            return
        onward_link, onward = hop
        circuit = self._add(link, frame.circuit, frame.cls, frame.nonce)
        circuit.second = Leg(onward_link, self._label(onward_link))
        self._links[onward_link][circuit.second.label] = circuit
        self._ctx.count("circuits_relayed")
        self._ctx.send(
            onward_link,
            encode_frame(
                Open(
                    circuit.second.label,
                    frame.target,
                    onward,
                    frame.route,
                    frame.nonce,
                    frame.hops + 1,
                    frame.cls,
                    frame.handshake,
                )
            ),
        )

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
        return None

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
            circuit.answer = frame.handshake
            if circuit.listener is not None:
                circuit.listener.opened(circuit)
            return
        first = circuit.first
        onward = Opened(first.label, frame.handshake, frame.hops + 1, frame.rtt_us, frame.rate)
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
        circuit.moved_us = self._ctx.now_us
        other = self._other(circuit, leg)
        if other is not None:
            other.queue.append(frame.payload)
            self.pump(circuit, other)
        elif circuit.listener is not None:
            circuit.listener.received(circuit, frame.payload)

    def on_credit(self, link: int, frame: Credit) -> None:
        """The neighbour has room again."""
        circuit, leg = self._find(link, frame.circuit)
        if circuit is None or leg is None:
            return
        leg.credit = min(leg.credit + frame.amount, CREDIT_BYTES_MAX)
        self.pump(circuit, leg)
        if circuit.listener is not None and circuit.sendable and not leg.queue:
            circuit.listener.writable(circuit)

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

    @staticmethod
    def _other(circuit: Circuit, leg: Leg) -> Leg | None:
        if circuit.second is None:
            return None
        return circuit.second if leg is circuit.first else circuit.first

    def _grant(self, circuit: Circuit, leg: Leg) -> None:
        leg.room += circuit.window
        self._ctx.send(leg.link, encode_frame(Credit(leg.label, circuit.window)))

    def give_back(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """Return credit for bytes that have left this peer, a quarter of a window at a time."""
        leg.owed += size
        if leg.owed * 4 >= circuit.window and not leg.ended_in and not circuit.gone:
            leg.room += leg.owed
            self._ctx.send(leg.link, encode_frame(Credit(leg.label, leg.owed)))
            leg.owed = 0

    def pump(self, circuit: Circuit, leg: Leg) -> None:
        """Send what is queued on a leg, as far as its credit goes."""
        limit = self._ctx.config.data_bytes_max
        source = self._other(circuit, leg)
        while leg.queue and leg.credit and not circuit.gone:
            part = leg.queue[0]
            piece = part[: min(leg.credit, limit)]
            if len(piece) == len(part):
                leg.queue.popleft()
            else:
                leg.queue[0] = part[len(piece) :]
            leg.credit -= len(piece)
            circuit.moved_us = self._ctx.now_us
            channel = _CHANNELS[circuit.cls]
            self._ctx.emit(Send(leg.link, channel, (encode_data(leg.label), piece)))
            if source is not None:
                self.give_back(circuit, source, len(piece))
        if leg.ending and not leg.queue and not leg.ended_out and circuit.open:
            leg.ended_out = True
            # END must not overtake DATA, so it takes the channel of the circuit's class
            channel = _CHANNELS[circuit.cls]
            self._ctx.emit(Send(leg.link, channel, (encode_frame(End(leg.label)),)))
        self._close_if_ended(circuit)

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
        listener, circuit.listener = circuit.listener, None
        for leg in (circuit.first, circuit.second):
            if leg is not None and leg.link != origin and leg.link in self._links:
                self._send_reset(leg.link, leg.label, code)
        if listener is not None and (origin is not None or tell):
            listener.closed(circuit, code)

    def _forget(self, circuit: Circuit) -> None:
        circuit.gone = True
        self._nonces.discard(circuit.nonce)
        for leg in (circuit.first, circuit.second):
            if leg is not None:
                self._links.get(leg.link, {}).pop(leg.label, None)

    def _send_reset(self, link: int, label: int, code: ResetCode) -> None:
        self._ctx.send(link, encode_frame(Reset(label, code, 0)))

    def _opening_over(self, circuit: Circuit) -> None:
        if not circuit.open:
            self.drop(circuit, ResetCode.STALLED, origin=None, tell=True)

    def _sweep(self) -> None:
        """Reset circuits that have not moved for too long; thin ones may stand idle."""
        limit = self._ctx.now_us - self._ctx.config.stalled_us
        seen = {id(c): c for table in self._links.values() for c in table.values()}
        for circuit in seen.values():
            legs = (circuit.first, circuit.second)
            waiting = any(leg is not None and (leg.queue or leg.ending) for leg in legs)
            if (waiting or circuit.cls is Class.BULK) and circuit.moved_us < limit:
                self.drop(circuit, ResetCode.STALLED, origin=None, tell=True)
        self._sweeping = bool(self._nonces)
        if self._sweeping:
            self._ctx.after(self._ctx.config.stalled_us // 2, self._sweep)
