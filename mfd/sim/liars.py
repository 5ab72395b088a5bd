"""Peers that lie: a real peer inside, and around it a wrapper that bends what it says.

    near      says that every holder is at hand (metric 1), and swallows what comes because of that
    flood     names of its own, requests, circuits, by the dozen
    replay    sends frames again that others have sent, to anybody, much later
    garbage   frames with flipped bits, or of bits alone
    discard   says that it has stored what it has thrown away
    forge     records of other holders, with seqnos far ahead and no right signature

Rules of this file: a liar has one key, its own; it cannot sign for others. Chance is the seed's.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgpack

from mfd.core.effects import Effect, Send, Store
from mfd.core.events import Event, LinkDown, LinkUp, Received, Stored
from mfd.core.frames import (
    DATA_TYPE,
    Class,
    Open,
    SeqnoRequest,
    Update,
    Via,
    decode_frame,
    encode_frame,
)
from mfd.core.peer import Peer
from mfd.core.sources import Record, seal_record
from mfd.core.status import Status
from mfd.packet.errors import PacketError
from mfd.sim.chance import Chance

if TYPE_CHECKING:
    from mfd.sim.host import Host

__all__ = ["HABITS", "Liar"]

HABITS = ("near", "flood", "replay", "garbage", "discard", "forge")
UPDATE_TYPE, OPEN_TYPE = 4, 16
REMEMBERED = 256
BEAT_US = {"flood": 1_000_000, "replay": 300_000, "garbage": 2_000_000, "forge": 500_000}
FLOOD = 12  # frames of a kind at a time
FLOOD_NAMES = 150


class Liar:
    """Answers like a Peer; does not tell the truth."""

    def __init__(self, host: Host, peer: Peer, chance: Chance, habits: tuple[str, ...]) -> None:
        self.honest = peer  # what it would be without its habits
        self.id = peer.id
        self._host = host
        self._chance = chance
        self._habits = habits
        self._links: list[int] = []
        self._frames: deque[bytes] = deque(maxlen=REMEMBERED)
        self._due_us = dict.fromkeys((h for h in habits if h in BEAT_US), 0)

    # the door of a Peer

    def handle(self, event: Event, now_us: int) -> list[Effect]:
        """Let the honest peer answer, then bend it."""
        if isinstance(event, LinkUp):
            self._links.append(event.link)
        elif isinstance(event, LinkDown) and event.link in self._links:
            self._links.remove(event.link)
        elif isinstance(event, Received):
            self._frames.append(bytes(event.frame))
        effects = self.honest.handle(event, now_us)
        bent = [other for effect in effects for other in self._bend(event, effect)]
        for habit, due_us in self._due_us.items():
            if now_us >= due_us:
                self._due_us[habit] = now_us + BEAT_US[habit]
                bent += self._mischief(habit) if self._links else []
        return bent

    def deadline_us(self) -> int | None:
        """The honest peer's, or that of the next mischief."""
        due_us = self.honest.deadline_us()
        mine = min(self._due_us.values(), default=None)
        if mine is None or due_us is None:
            return due_us if mine is None else mine
        return min(due_us, mine)

    def status(self) -> Status:
        """What the honest peer would say."""
        return self.honest.status()

    def version(self, walker_id: bytes) -> Any:
        """What the honest peer would say."""
        return self.honest.version(walker_id)

    # bending

    def _bend(self, event: Event, effect: Effect) -> list[Effect]:
        if isinstance(effect, Store) and "discard" in self._habits:
            self._host.world.happen(self._host, Stored(effect.op), 100)
            return []
        if not isinstance(effect, Send) or "near" not in self._habits:
            return [effect]
        kind = effect.frame[0][0]
        relayed = isinstance(event, Received) and event.frame[:1] and event.frame[0] == kind
        if relayed and kind in (OPEN_TYPE, DATA_TYPE):
            return []
        if kind == UPDATE_TYPE:
            return [Send(effect.link, effect.channel, (self._nearer(effect.frame[0]),))]
        return [effect]

    @staticmethod
    def _nearer(frame: Any) -> bytes:
        update = decode_frame(frame)
        assert isinstance(update, Update)
        body = [[entry[0], 1, 1, 0] if len(entry) == 4 else entry for entry in update.body]
        return encode_frame(Update(body))

    # mischief

    def _mischief(self, habit: str) -> list[Effect]:
        match habit:
            case "replay":
                frames = [self._chance.pick(self._frames)] if self._frames else []
            case "garbage":
                frames = [self._garbled()]
            case "forge":
                frames = self._forged()
            case _:
                frames = self._flood()
        return [Send(self._chance.pick(self._links), "control", (frame,)) for frame in frames]

    def _garbled(self) -> bytes:
        if not self._frames or self._chance.hit(0.3):
            return self._chance.bytes(self._chance.between(1, 300))
        frame = bytearray(self._chance.pick(self._frames))
        for _ in range(self._chance.between(1, 4)):
            frame[self._chance.below(len(frame))] ^= 1 << self._chance.below(8)
        return bytes(frame)

    def _forged(self) -> list[bytes]:
        """Raise the seqno in somebody's record, and leave the signature."""
        for known in reversed(self._frames):
            for entry in self._entries(known):
                if len(entry) == 4 and entry[0][:32] != self.id:
                    network, name, seqno, *rest = msgpack.unpackb(entry[0][96:])
                    body = msgpack.packb([network, name, seqno + 1_000, *rest])
                    return [encode_frame(Update([[entry[0][:96] + body, 1, 1, 0]]))]
        return []

    def _flood(self) -> list[bytes]:
        chance, out = self._chance, []
        entries = []
        for _ in range(FLOOD):
            name = f"flood/{chance.below(FLOOD_NAMES)}"
            record = Record(name, self.id, chance.below(1 << 40), 1, 3_600_000_000, b"")
            sealed = seal_record(self._host.config.network, record, self._host.key).sealed
            entries.append([sealed, 1, 1, 0])
        out.append(encode_frame(Update(entries)))
        for known in list(self._frames)[:FLOOD]:
            out += self._requests(known)
        for _ in range(FLOOD // 4):
            label = 2 * chance.below(1 << 20) + chance.below(2)
            via = Via("flood", chance.bytes(32), 0, (1 << 32) - 1)
            frame = Open(label, via.holder, via, (), chance.bytes(16), 1, Class.THIN, b"")
            out.append(encode_frame(frame))
        return out

    @staticmethod
    def _entries(frame: bytes) -> list[Any]:
        """What a frame that was heard says of routes; another liar may have garbled it."""
        try:
            update = decode_frame(frame) if frame[0] == UPDATE_TYPE else None
        except PacketError:
            return []
        body = update.body if isinstance(update, Update) and type(update.body) is list else []
        shapes = ((bytes, int, int, int), (str, bytes, int))
        return [e for e in body if type(e) is list and tuple(map(type, e)) in shapes]

    def _requests(self, known: bytes) -> list[bytes]:
        """Ask the holders in an UPDATE that was heard for ever newer seqnos."""
        names = [entry for entry in self._entries(known) if len(entry) == 3]
        return [
            encode_frame(SeqnoRequest([name, holder, self._chance.below(1 << 50), 0, 64]))
            for name, holder, _ in names[:2]
        ]
