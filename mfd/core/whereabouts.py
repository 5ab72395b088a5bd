"""Where far peers can be dialled: their records travel beside what is said of them as holders.

Rules of this file: only where everybody can dial everybody. A record crosses a link once, and again
when its addresses change, at a bounded rate; whoever told it is not told it back. What ends is
found again by SEEK, or comes with OPENED.
Source: spec/routing.md, R-47 and R-48; spec/transfer.md, T-31.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from mfd.core.bucket import Bucket
from mfd.core.context import Context
from mfd.core.frames import Update, encode_frame
from mfd.core.recordbook import RecordBook
from mfd.core.records import SEALED_BYTES_MAX, Item
from mfd.packet.errors import PacketError

__all__ = ["Whereabouts", "is_item"]

ITEMS_MAX = 16  # records in one UPDATE
AGE_BYTES = 4
AGE_S_MAX = (1 << 32) - 1
KEY_BYTES = 32
TOLD_US = 1_000_000  # between two UPDATE with records to one neighbour


@dataclass(slots=True)
class _Link:
    """One neighbour."""

    takes: Bucket
    told: dict[bytes, tuple[str, ...]] = field(default_factory=dict)  # addresses known over there
    due: dict[bytes, None] = field(default_factory=dict)  # holders to be told of, in order


class Whereabouts:
    """Records of holders, on their way."""

    def __init__(self, ctx: Context, book: RecordBook) -> None:
        self._ctx = ctx
        self._book = book
        self._links: dict[int, _Link] = {}
        self._timed = False

    @property
    def _open(self) -> bool:
        return self._ctx.config.open_network

    def link_up(self, link: int) -> None:
        """A neighbour: it has our own record already."""
        config = self._ctx.config
        state = self._links[link] = _Link(Bucket(config.joins_per_s, config.joins_burst))
        mine = self._book.get(self._ctx.me, self._ctx.now_us)
        state.told[self._ctx.me] = mine.record.addresses if mine is not None else ()

    def link_down(self, link: int) -> None:
        """A neighbour is gone."""
        self._links.pop(link, None)

    # records by themselves

    def item(self, peer: bytes) -> Item | None:
        """The record of a peer that can be dialled."""
        entry = self._book.get(peer, self._ctx.now_us) if self._open else None
        if entry is None or not entry.record.addresses:
            return None
        return self._book.item(peer, self._ctx.now_us)

    def learn(self, peer: bytes, item: Any) -> None:
        """Take the record of a peer that somebody passed on, if it is one. Never raises."""
        if not self._open or not is_item(item) or item[0][:KEY_BYTES] != peer:
            return
        try:
            self._book.learn((item[0], item[1]), self._ctx.now_us)
        except PacketError:
            self._ctx.count("records_refused")

    def tail(self, most: int) -> bytes:
        """Our own record as it follows other bytes: | age u32 | record |; empty if too long."""
        item = self.item(self._ctx.me)
        if item is None or AGE_BYTES + len(item[0]) > most:
            return b""
        return item[1].to_bytes(AGE_BYTES, "little") + item[0]

    def learn_tail(self, peer: bytes, tail: bytes) -> None:
        """Take what `tail` has made elsewhere. Never raises."""
        age_s = int.from_bytes(tail[:AGE_BYTES], "little")
        self.learn(peer, [bytes(tail[AGE_BYTES:]), age_s])

    # beside adverts

    def note(self, link: int, frame: object) -> None:
        """These holders are advertised to a neighbour: it may want to dial them."""
        state = self._links.get(link)
        if not self._open or state is None or not isinstance(frame, Update):
            return
        for entry in frame.body:
            holder = entry[0][:KEY_BYTES] if len(entry) == 4 else b""
            if holder and holder not in state.told:
                if len(state.told) >= self._ctx.config.adverts_per_link_max:
                    return
                state.told[holder] = ()
                state.due[holder] = None
        if state.due:
            self._later()

    def news(self, peer: bytes) -> None:
        """The book has a newer record of a peer."""
        for state in self._links.values() if self._open else ():
            if peer in state.told:
                state.due[peer] = None
                self._later()

    def _later(self) -> None:
        if not self._timed:
            self._timed = True
            self._ctx.after(TOLD_US, self._tell)

    def _tell(self) -> None:
        self._timed = False
        for link, state in self._links.items():
            items: list[Item] = []
            while state.due and len(items) < ITEMS_MAX:
                peer = next(iter(state.due))
                del state.due[peer]
                item = self.item(peer)
                addresses = self._book.view()[peer].record.addresses if item is not None else ()
                if item is not None and addresses != state.told[peer]:
                    state.told[peer] = addresses
                    items.append(item)
            if items:
                self._ctx.send(link, encode_frame(Update([list(item) for item in items])))
            if state.due:
                self._later()

    def heed(self, link: int, body: Any) -> Any:
        """Take the records out of the body of an UPDATE; return the rest. Never raises."""
        state = self._links.get(link)
        if not self._open or state is None or type(body) is not list:
            return body
        items = [entry for entry in body if is_item(entry)]
        if not items:
            return body
        for item in items[:ITEMS_MAX]:
            if not state.takes.take(self._ctx.now_us):
                self._ctx.count("records_over_rate")
                break
            peer = item[0][:KEY_BYTES]
            self.learn(peer, item)
            entry = self._book.view().get(peer)
            if entry is not None and entry.record.sealed == item[0]:
                room = len(state.told) < self._ctx.config.adverts_per_link_max
                if peer in state.told or room:
                    state.told[peer] = entry.record.addresses
        return [entry for entry in body if not is_item(entry)]


def is_item(entry: object) -> bool:
    """Say whether this has the form of a record and its age."""
    match entry:
        case [bytes() as sealed, int() as age_s]:
            sized = KEY_BYTES < len(sealed) <= SEALED_BYTES_MAX
            return sized and type(age_s) is int and 0 <= age_s <= AGE_S_MAX
    return False
