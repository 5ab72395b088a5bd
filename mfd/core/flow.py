"""How the bytes of circuits move: credit at every hop, turns on every link, and what is measured.

Rules of this file: it moves bytes of circuits that stand; how they come and go is decided in
transfer.py. What a neighbour may send was set aside before, and grows only by what can be.
Source: spec/transfer.md, sections "Credit" and "Order of service".
"""

from __future__ import annotations

from mfd.core.circuit import Circuit, Leg
from mfd.core.context import Context
from mfd.core.credit import Meter, Reserve
from mfd.core.effects import Channel, Send
from mfd.core.frames import Class, Credit, End, Opened, encode_data, encode_frame
from mfd.core.outbox import Outbox

__all__ = ["Flow"]

PROGRESS_BYTES = 64 << 10  # a bulk circuit that moves less in `stalled` does not move
_CHANNELS: dict[Class, Channel] = {Class.THIN: "control", Class.BULK: "bulk"}


class Flow:
    """The moving half of all circuits of one peer."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._outboxes: dict[int, Outbox] = {}
        self._meters: dict[int, Meter] = {}  # of what comes in
        self._reserve = Reserve(ctx.config.circuit_bytes_max)

    # links

    def _flow_over(self, link: int, *, paced: bool) -> None:
        self._meters[link] = Meter()
        self._outboxes[link] = Outbox(
            paced=paced,
            frame_bytes_max=self._ctx.config.data_bytes_max,
            emit=self._emit,
            left=self._left,
            now=lambda: self._ctx.now_us,
        )

    def _flow_ends(self, link: int) -> None:
        self._outboxes.pop(link, None)
        self._meters.pop(link, None)

    def written(self, link: int, size: int) -> None:
        """The driver has seen bytes leave on bulk."""
        if link in self._outboxes:
            self._outboxes[link].written(size)

    # credit

    def _asked(self, link: int, cls: Class) -> int:
        """Bytes to be set aside for a circuit that a neighbour opens: both directions."""
        return self._forward_window(link, cls) + self._ctx.config.thin_window_bytes

    def _forward_window(self, link: int, cls: Class) -> int:
        config = self._ctx.config
        if cls is Class.THIN:
            return config.thin_window_bytes
        return self._meters[link].window(config.bulk_window_bytes, config.bulk_window_max_bytes)

    def _grant(self, circuit: Circuit, leg: Leg) -> None:
        """Allow a first window: what was set aside where data is to come, little the other way."""
        thin_bytes = self._ctx.config.thin_window_bytes
        forward = circuit.reserved - thin_bytes if circuit.reserved else thin_bytes
        leg.window = forward if leg is circuit.first else thin_bytes
        self._allow(leg, leg.window)

    def _allow(self, leg: Leg, size: int) -> None:
        if leg.probe is None:
            leg.probe = (leg.granted, self._ctx.now_us)
        leg.granted += size
        leg.room += size
        self._ctx.send(leg.link, encode_frame(Credit(leg.label, size)))

    def give_back(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """Return credit for bytes that have left this peer, a quarter of a window at a time."""
        leg.owed += size
        stands = not circuit.gone and leg.link in self._meters
        if leg.owed * 4 >= leg.window and not leg.ended_in and stands:
            owed, leg.owed = leg.owed, 0
            self._allow(leg, owed + self._widen(circuit, leg))

    def _widen(self, circuit: Circuit, leg: Leg) -> int:
        """Set more aside where the link is measured to carry more; return the bytes added."""
        if circuit.cls is Class.THIN or leg is not circuit.first or not circuit.reserved:
            return 0  # nothing, or little, comes this way
        added = min(self._forward_window(leg.link, circuit.cls) - leg.window, leg.window)
        if added <= 0 or not self._reserve.take(leg.link, added):
            return 0
        leg.window += added
        circuit.reserved += added
        return added

    def _measure(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """Learn from bytes that came: goodput, and the round trip of the credit that let them."""
        now_us, leg.came = self._ctx.now_us, leg.came + size
        self._moved(circuit, size)
        if circuit.cls is Class.BULK:
            self._meters[leg.link].came(size, now_us)
            if leg.probe is not None and leg.came > leg.probe[0]:
                self._meters[leg.link].returned(now_us - leg.probe[1])
                leg.probe = None

    def _moved(self, circuit: Circuit, size: int) -> None:
        circuit.moved += size
        if circuit.cls is Class.THIN or circuit.moved >= PROGRESS_BYTES:
            circuit.moved, circuit.since_us = 0, self._ctx.now_us

    def rate(self, circuit: Circuit) -> int:
        """Bytes a second of the narrowest link on the way out of here; 0 where not measured."""
        outbox = self._outboxes.get(circuit.first.link)
        rates = (outbox.meter.rate if outbox else 0, circuit.rate_behind)
        return min((rate for rate in rates if rate), default=0)

    def _beyond(self, link: int, opened: Opened) -> tuple[int, int]:
        """What OPENED says of the links behind, with this link added: (rtt us, bytes/s)."""
        rtt_us, rate = self._meters[link].rtt_us, self._outboxes[link].meter.rate
        if opened.hops == 1:
            return rtt_us, rate
        known = bool(rtt_us and opened.rtt_us), bool(rate and opened.rate)
        return (
            opened.rtt_us + rtt_us if known[0] else 0,
            min(rate, opened.rate) if known[1] else 0,
        )

    # sending

    def pump(self, circuit: Circuit, leg: Leg) -> None:
        """Send what is queued on a leg, as far as its credit goes and its turn comes."""
        outbox = self._outboxes.get(leg.link)
        if outbox is None:
            return  # the link is down, and the circuit about to hear of it
        if circuit.cls is Class.BULK and leg.sendable_bytes:
            outbox.offer(circuit, leg)
        while circuit.cls is Class.THIN and leg.sendable_bytes and not circuit.gone:
            self._left(circuit, leg, self._emit(circuit, leg, self._ctx.config.data_bytes_max))
        if leg.ending and not leg.queued and not leg.ended_out and circuit.open:
            leg.ended_out = True
            # END must not overtake DATA, so it takes the channel of the circuit's class
            channel = _CHANNELS[circuit.cls]
            self._ctx.emit(Send(leg.link, channel, (encode_frame(End(leg.label)),)))
        self._close_if_ended(circuit)

    def _emit(self, circuit: Circuit, leg: Leg, limit: int) -> int:
        """Send one frame of a leg; return its payload's size."""
        piece = leg.pull(min(leg.credit, limit))
        leg.credit -= len(piece)
        self._moved(circuit, len(piece))
        channel = _CHANNELS[circuit.cls]
        self._ctx.emit(Send(leg.link, channel, (encode_data(leg.label), piece)))
        return len(piece)

    def _left(self, circuit: Circuit, leg: Leg, size: int) -> None:
        """A frame is gone: its bytes make room for more, and its circuit may go on."""
        source = self._other(circuit, leg)
        if source is not None:
            self.give_back(circuit, source, size)
        self._dry(circuit, leg)
        if leg.ending and circuit.cls is Class.BULK and not circuit.gone:
            self.pump(circuit, leg)

    def _dry(self, circuit: Circuit, leg: Leg) -> None:
        if circuit.listener is not None and circuit.sendable:
            circuit.listener.writable(circuit)

    @staticmethod
    def _other(circuit: Circuit, leg: Leg) -> Leg | None:
        if circuit.second is None:
            return None
        return circuit.second if leg is circuit.first else circuit.first

    def _close_if_ended(self, circuit: Circuit) -> None:
        """Forget a circuit that both sides have ended."""
        raise NotImplementedError
