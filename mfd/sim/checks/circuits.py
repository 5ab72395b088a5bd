"""Circuits, as OPEN, DATA and CREDIT frames show them, and what peers queue.

    S10  every relay passes an OPEN on strictly nearer than it came, or one mark further along the
         way that SEEK has found; one hop further, within 64
    S14  nothing is done about a frame from a link that does not stand; a link keeps its neighbour
    R1   no byte is sent beyond the credit for it, no table exceeds its limit
    L4   no byte waits much longer than the stall limit

Rules of this package: see its __init__. Source: spec/transfer.md, sections "Opening" and "Credit".
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.effects import Effect, Report, Send
from mfd.core.events import Event, LinkDown, LinkUp, Received
from mfd.core.frames import DATA_TYPE, Credit, Open, decode_frame
from mfd.core.routestate import is_nearer
from mfd.packet.errors import PacketError
from mfd.sim import insight
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["CircuitFlow"]

OPEN_TYPE, CREDIT_TYPE = 16, 19
HOPS_MAX = 64
OPENS_MAX = 4_096


class _Ledger:
    """What one host may send and has heard, in its present life."""

    def __init__(self, life: int) -> None:
        self.life = life
        self.credit: dict[int, dict[int, int]] = {}  # link -> label -> bytes that may be sent
        self.opens: dict[bytes, Open] = {}  # nonce -> the OPEN that came
        self.links: dict[int, bytes] = {}  # that stand -> neighbour


class CircuitFlow:
    """Watches the circuits of all honest peers."""

    def __init__(self, world: World, liars: set[str]) -> None:
        self._world = world
        self._liars = liars
        self._ledgers: dict[int, _Ledger] = {}
        self.opened = 0
        self.data_bytes = 0

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check one host after one event. Raises: Violation."""
        ledger = self._ledgers.get(host.index)
        if ledger is None or ledger.life != host.life:
            ledger = self._ledgers[host.index] = _Ledger(host.life)
        if type(event) is Received:
            self._heard(host, ledger, event, effects)
        elif type(event) is LinkUp:
            known = ledger.links.setdefault(event.link, event.peer)
            if known != event.peer:
                raise self._violation("S14", f"link {event.link} of {host.name} changed neighbours")
        for effect in effects:
            if type(effect) is Send:
                self._said(host, ledger, effect)
        if type(event) is LinkDown:
            ledger.links.pop(event.link, None)
            ledger.credit.pop(event.link, None)

    def _heard(
        self, host: Host, ledger: _Ledger, event: Received, effects: Sequence[Effect]
    ) -> None:
        if event.link not in ledger.links:
            done = [e for e in effects if not isinstance(e, Report)]
            about = [e for e in done if isinstance(e, Send) and e.link == event.link]
            if about:
                raise self._violation(
                    "S14", f"{host.name} answers link {event.link}, which does not stand"
                )
            return
        kind = event.frame[0] if len(event.frame) else 0
        if kind not in (OPEN_TYPE, CREDIT_TYPE):
            return
        try:
            frame = decode_frame(event.frame)
        except PacketError:
            return
        if isinstance(frame, Open):
            if len(ledger.opens) >= OPENS_MAX:
                del ledger.opens[next(iter(ledger.opens))]
            ledger.opens[frame.nonce] = frame  # a replay by a liar may come over another way
        elif isinstance(frame, Credit):
            credit = ledger.credit.setdefault(event.link, {})
            credit[frame.circuit] = credit.get(frame.circuit, 0) + frame.amount

    def _said(self, host: Host, ledger: _Ledger, send: Send) -> None:
        kind = send.frame[0][0]
        if kind == DATA_TYPE:
            head = bytes(send.frame[0][:5])
            size = sum(len(part) for part in send.frame) - 5
            label = int.from_bytes(head[1:], "little")
            credit = ledger.credit.setdefault(send.link, {})
            left = credit.get(label, 0) - size
            self.data_bytes += size
            if left < 0:
                raise self._violation(
                    "R1", f"{host.name} sends {-left} bytes more than it has credit for"
                )
            credit[label] = left
        elif kind == OPEN_TYPE:
            frame = decode_frame(b"".join(send.frame))
            assert isinstance(frame, Open)
            self._check_open(host, ledger, frame)

    def _check_open(self, host: Host, ledger: _Ledger, frame: Open) -> None:
        self.opened += 1
        came = ledger.opens.get(frame.nonce)
        if frame.hops > HOPS_MAX + 1:
            raise self._violation("S10", f"{host.name} opens a circuit over {frame.hops} hops")
        if came is None:
            return
        if frame.hops != came.hops + 1:
            raise self._violation("S10", f"{host.name} counts hop {frame.hops} after {came.hops}")
        if came.via is None or frame.via is None:
            return  # the neighbour is the target
        if came.route and (frame.route, frame.via) == (came.route[1:], came.via):
            return  # a way that SEEK has found, one mark shorter; its end has promised nothing yet
        before, after = (came.via.seqno, came.via.metric), (frame.via.seqno, frame.via.metric)
        if not is_nearer(after, before):
            raise self._violation(
                "S10", f"{host.name} passes a circuit on at {after}, promised was {before}"
            )

    # now and then

    def look(self, host: Host) -> None:
        """Check a host's tables and queues. Raises: Violation."""
        if host.peer is None or host.name in self._liars:
            return
        for what, (size, limit) in insight.sizes(host.peer).items():
            if size > limit:
                raise self._violation("R1", f"{host.name} has {size} {what}; the limit is {limit}")
        now_us = host.local_us(self._world.now_us)
        for _, circuit in insight.circuits(host.peer):
            legs = [leg for leg in (circuit.first, circuit.second) if leg is not None]
            for leg, came in zip(legs, reversed(legs), strict=True):
                relay = circuit.second is not None
                if relay and leg.queued > came.window:  # what waits here came in over there
                    raise self._violation(
                        "R1", f"{host.name} holds {leg.queued} bytes of a circuit it relays"
                    )
                idle_us = now_us - circuit.since_us
                # stalled circuits are looked for four times in that time
                if leg.queued and idle_us > 1.75 * host.config.stalled_us and not host.paused:
                    raise self._violation(
                        "L4", f"bytes have waited {idle_us / 1e6:.0f} s at {host.name}"
                    )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")
