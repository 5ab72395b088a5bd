"""Custody messages in the DATA frames that one side of a link carries, sealed or plain.

The simulator's seal hides nothing: a record is its plain bytes and a tag (sim/sealing.py). Whether
the tag is right is the end's business; what is signed is judged by its signature.
"""

from __future__ import annotations

from mfd.core.frames import DATA_TYPE, Open, decode_frame
from mfd.core.messages import Splitter
from mfd.core.seals import PROOF_BYTES, RECORD_BYTES_MAX, SEALED
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer
from mfd.sim.host import Host
from mfd.sim.sealing import TAG_BYTES

__all__ = ["Streams"]

OPEN_TYPE = 16
SIZE_BYTES = 4
STREAMS_MAX = 4_096  # of one host; the oldest are forgotten

Key = tuple[int, bytes]  # link, label


class _Stream:
    """One direction of a circuit."""

    def __init__(self, *, dialled: bool) -> None:
        self._dialled = dialled  # this side opened it: its first record proves who it is
        self._held = bytearray()
        self._messages = Splitter()

    def feed(self, payload: memoryview) -> list[bytes]:
        """Return the messages that are complete now. Raises: PacketError where there are none."""
        out: list[bytes] = []
        self._held += payload
        while len(self._held) >= SIZE_BYTES:
            size = int.from_bytes(self._held[:SIZE_BYTES], "little")
            if len(self._held) < SIZE_BYTES + min(size, RECORD_BYTES_MAX + TAG_BYTES):
                break
            box = self._held[SIZE_BYTES : SIZE_BYTES + size]
            del self._held[: SIZE_BYTES + size]
            plain = memoryview(bytes(box))[: max(0, size - TAG_BYTES)]
            if self._dialled:
                self._dialled, plain = False, plain[PROOF_BYTES:]
            out += self._messages.feed(plain)
        return out


class Streams:
    """Cuts streams of thin circuits into messages, whoever they are from."""

    def __init__(self) -> None:
        self._streams: dict[int, dict[Key, _Stream | None]] = {}

    def data(self, host: Host, link: int, frame: Buffer) -> list[bytes]:
        """Return the raw messages that a frame completes; none of what is no DATA."""
        kind = frame[0] if len(frame) else 0
        if kind == OPEN_TYPE:
            self._opens(host, link, frame)
        if kind != DATA_TYPE or len(frame) < 6:
            return []
        key = (link, bytes(frame[1:5]))
        streams = self._streams.setdefault(host.index, {})
        if key not in streams:
            self._add(host, key, _Stream(dialled=False))
        stream = streams[key]
        if stream is None:
            return []
        try:
            return stream.feed(memoryview(frame)[5:])
        except PacketError:
            streams[key] = None  # a bulk circuit, or a liar's
            return []

    def _opens(self, host: Host, link: int, frame: Buffer) -> None:
        """The side that opens a circuit speaks first, of itself."""
        try:
            opened = decode_frame(frame)
        except PacketError:
            return
        assert isinstance(opened, Open)
        sealed = opened.handshake[:1] == SEALED
        key = (link, opened.circuit.to_bytes(4, "little"))
        self._add(host, key, _Stream(dialled=True) if sealed else None)

    def _add(self, host: Host, key: Key, stream: _Stream | None) -> None:
        streams = self._streams.setdefault(host.index, {})
        if len(streams) >= STREAMS_MAX:
            del streams[next(iter(streams))]
        streams.setdefault(key, stream)
