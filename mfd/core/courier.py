"""Signed messages to any peer of the network, over thin circuits that open by themselves.

Rules of this file: at most one circuit that we opened to a peer; messages keep their order in it.
Delivery is not promised: whoever needs an answer asks again.
Source: spec/custody.md, section "Messages"; spec/transfer.md, section "Thin circuits".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from mfd.core.circuit import Channel
from mfd.core.context import Context, Timer
from mfd.core.frames import Class, ResetCode, Via
from mfd.core.messages import Kind, Message, Splitter, decode_message, encode_message
from mfd.core.seals import Seals
from mfd.packet.errors import PacketError
from mfd.packet.objects import object_digest

__all__ = ["Courier"]

WAITING_MAX = 64  # messages queued for one peer before its circuit stands
IDLE_US = 30_000_000
RETRY_US = 1_000_000  # before the second try; doubles


class _Line:
    """What flows between us and one other peer through one circuit."""

    __slots__ = ("circuit", "messages", "peer", "retry", "splitter", "tries", "used_us")

    def __init__(self, peer: bytes | None) -> None:
        self.peer = peer  # None on an accepted circuit until its first signed message
        self.circuit: Channel | None = None
        self.messages: deque[bytes] = deque()
        self.retry: Timer | None = None
        self.splitter = Splitter()
        self.tries = 0
        self.used_us = 0


class Courier:
    """Sends and receives custody messages; knows nothing of what they say."""

    def __init__(
        self,
        ctx: Context,
        circuits: Callable[[], Seals],
        via: Callable[[bytes, Class], Via | None],
        deliver: Callable[[Message], None],
    ) -> None:
        self._ctx = ctx
        self._circuits = circuits
        self._via = via
        self._deliver = deliver
        self._lines: dict[bytes, _Line] = {}  # by peer: where to send
        self._by_circuit: dict[bytes, _Line] = {}  # by the circuit's nonce
        self._sweeping = False
        self.takes: Callable[[int], bool] = lambda link: True  # one message more from a neighbour

    def send(self, peer: bytes, kind: Kind, *body: Any) -> bytes:
        """Sign a message and send it when a circuit stands; return its ref."""
        config = self._ctx.config
        message = encode_message(kind, body, network=config.network, signer=self._ctx.signer)
        self.resend(peer, message)
        return object_digest(message)

    def resend(self, peer: bytes, message: bytes) -> None:
        """Send a message that is already signed."""
        line = self._lines.get(peer)
        if line is None:
            line = self._lines[peer] = _Line(peer)
        if len(line.messages) >= WAITING_MAX:
            line.messages.popleft()
            self._ctx.count("messages_dropped")
        line.messages.append(message)
        if line.circuit is not None:
            self._flush(line)
        elif line.retry is None:
            self._connect(line)

    def _connect(self, line: _Line) -> None:
        line.retry = None
        if line.circuit is not None or not line.messages:
            return
        assert line.peer is not None
        via = self._via(line.peer, Class.THIN)
        circuit = self._circuits().connect(line.peer, Class.THIN, via, b"", self)
        if circuit is None:
            self._retry(line)
            return
        line.circuit = circuit
        self._by_circuit[circuit.nonce] = line
        self._sweep_later()

    def _retry(self, line: _Line) -> None:
        line.tries += 1
        if line.tries > self._ctx.config.circuit_retries:
            self._ctx.count("messages_dropped", len(line.messages))
            self._lines.pop(line.peer or b"", None)
            return
        jitter = self._ctx.dice.below(200_000)
        delay_us = (RETRY_US << (line.tries - 1)) + jitter
        line.retry = self._ctx.after(delay_us, lambda: self._connect(line))

    def _flush(self, line: _Line) -> None:
        circuit = line.circuit
        if circuit is None or not circuit.sendable:
            return  # a circuit that ends takes nothing more; once closed, a new one will
        line.used_us = self._ctx.now_us
        while line.messages and circuit.queued < circuit.window:
            message = line.messages.popleft()
            circuit.send(len(message).to_bytes(4, "little"), message)

    # circuits.Listener

    def accept(self, circuit: Channel) -> Courier:
        """A thin circuit from somewhere; who it is from, its first message proves."""
        line = _Line(None)
        line.circuit = circuit
        line.used_us = self._ctx.now_us
        self._by_circuit[circuit.nonce] = line
        self._sweep_later()
        return self

    def opened(self, circuit: Channel) -> None:
        """Send what has waited."""
        line = self._by_circuit[circuit.nonce]
        line.tries = 0
        self._flush(line)

    def received(self, circuit: Channel, payload: memoryview) -> None:
        """Cut the stream into messages and deliver those whose signature is right."""
        line = self._by_circuit[circuit.nonce]
        line.used_us = self._ctx.now_us
        circuit.consumed(len(payload))
        try:
            for raw in line.splitter.feed(payload):
                if not self.takes(circuit.link):
                    self._ctx.count("messages_over_rate")
                    if circuit.gone:
                        return
                    continue  # whoever needs an answer asks again
                message = decode_message(
                    raw, network=self._ctx.config.network, verify=self._ctx.verify
                )
                if line.peer is None:
                    self._bind(line, message.sender)
                self._deliver(message)
                if circuit.gone:
                    return
        except PacketError as error:
            self._ctx.count(f"messages_refused_{error.fault.name.lower()}")
            self._forget(circuit)
            circuit.reset(ResetCode.REFUSED)

    def _bind(self, line: _Line, sender: bytes) -> None:
        line.peer = sender
        if sender not in self._lines:
            self._lines[sender] = line

    def writable(self, circuit: Channel) -> None:
        """Go on with what has waited for credit."""
        self._flush(self._by_circuit[circuit.nonce])

    def closed(self, circuit: Channel, code: ResetCode | None) -> None:
        """Open again if something still waits."""
        line = self._forget(circuit)
        if line is None or line.peer is None or not line.messages:
            return
        if self._lines.setdefault(line.peer, line) is line:
            self._retry(line)

    def _forget(self, circuit: Channel) -> _Line | None:
        line = self._by_circuit.pop(circuit.nonce, None)
        if line is not None:
            line.circuit = None
            line.splitter = Splitter()
            if line.peer is not None and self._lines.get(line.peer) is line:
                del self._lines[line.peer]
        return line

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._ctx.after(IDLE_US // 2, self._sweep)

    def _sweep(self) -> None:
        """End circuits that nobody has used for a while."""
        limit = self._ctx.now_us - IDLE_US
        for line in list(self._by_circuit.values()):
            circuit = line.circuit
            if circuit is not None and line.used_us < limit and not circuit.queued:
                circuit.end()  # what the other side still says before its own END is heard
        self._sweeping = False
        if self._by_circuit:
            self._sweep_later()
