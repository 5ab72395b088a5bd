"""Frames as checkers read them: each once, though it is said to many, heard by each, and said on.

Rules of this package: see its __init__. The peers themselves decode every frame that they hear.
"""

from __future__ import annotations

from mfd.core.frames import Frame, Member, decode_frame
from mfd.core.memberframes import MemberFrame, decode_member
from mfd.packet.errors import PacketError
from mfd.packet.objects import Buffer

__all__ = ["Frames"]

KNOWN_MAX = 2_048


class Frames:
    """The frames read last, by their bytes. What it returns belongs to all: nobody changes it."""

    def __init__(self) -> None:
        self._known: dict[bytes, Frame | MemberFrame | None] = {}

    def read(self, frame: Buffer) -> Frame | MemberFrame | None:
        """Return what a frame says, down to the fields of a member frame; None: it is none."""
        raw = bytes(frame)
        if raw in self._known:
            return self._known[raw]
        try:
            read: Frame | MemberFrame | None = decode_frame(raw)
            if isinstance(read, Member):
                read = decode_member(read.kind, read.body)
        except PacketError:
            read = None  # a liar's
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[raw] = read
        return read
