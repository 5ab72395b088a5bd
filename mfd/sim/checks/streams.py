"""Custody messages in the DATA frames that one side of a link carries."""

from __future__ import annotations

from mfd.core.frames import DATA_TYPE
from mfd.core.messages import Splitter
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer
from mfd.sim.host import Host

__all__ = ["Streams"]

STREAMS_MAX = 4_096  # of one host; the oldest are forgotten


class Streams:
    """Cuts streams of thin circuits into messages, whoever they are from."""

    def __init__(self) -> None:
        self._streams: dict[int, dict[tuple[int, bytes], Splitter | None]] = {}

    def data(self, host: Host, link: int, frame: Buffer) -> list[bytes]:
        """Return the raw messages that a frame completes; none of what is no DATA."""
        if len(frame) < 6 or frame[0] != DATA_TYPE:
            return []
        streams = self._streams.setdefault(host.index, {})
        key = (link, bytes(frame[1:5]))
        if key not in streams:
            if len(streams) >= STREAMS_MAX:
                del streams[next(iter(streams))]
            streams[key] = Splitter()
        stream = streams[key]
        if stream is None:
            return []
        try:
            return list(stream.feed(memoryview(frame)[5:]))
        except PacketError:
            streams[key] = None  # a bulk circuit, or a liar's
            return []
