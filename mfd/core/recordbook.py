"""What is known of other peers: the newest valid record of each, and how old it is.

Rules of this file: an older seq never replaces a newer one; hearing a record again does not renew
it; an expired record is neither used nor passed on. Bounded: what no view needs goes first.
Source: spec/membership.md, section "Peer records".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mfd.core.config import Config
from mfd.core.events import LinkUp
from mfd.core.records import Item, PeerRecord, is_address, open_peer_record
from mfd.packet.signing import KEY_BYTES, Verifier

__all__ = ["Entry", "RecordBook"]

SECOND_US = 1_000_000


@dataclass(frozen=True, slots=True)
class Entry:
    """A record and the moments that belong to it, on this peer's clock."""

    record: PeerRecord
    born_us: int  # when it was made, as far as its age tells
    ends_us: int


class RecordBook:
    """Records by peer. Ended ones stay for once more their validity: they must not come back."""

    def __init__(self, config: Config, verify: Verifier) -> None:
        self._config = config
        self._verify = verify
        self._entries: dict[bytes, Entry] = {}
        self.needed: Callable[[bytes], bool] = lambda peer: False  # these are not evicted
        self.news: Callable[[bytes], None] = lambda peer: None  # a newer record has come
        self.late = 0  # records refused because a newer one, or their end, was known

    def learn(self, item: Item, now_us: int) -> PeerRecord | None:
        """Take a record that somebody passed on; return it if it is valid now, new or known.

        Raises: PacketError for a record that is none.
        """
        sealed, age_s = item
        known = self._entries.get(bytes(sealed[:KEY_BYTES]))
        if known is not None and known.record.sealed == sealed:
            return known.record if now_us < known.ends_us else None
        record = open_peer_record(sealed, self._config.network, self._verify)
        valid_us = min(record.valid_us, self._config.peer_record_valid_us)
        born_us = now_us - age_s * SECOND_US
        if (known is not None and record.seq <= known.record.seq) or born_us + valid_us <= now_us:
            self.late += 1
            return None
        if known is None and len(self._entries) >= self._config.peer_records_max:
            self._make_room()
        self._entries[record.peer] = Entry(record, born_us, born_us + valid_us)
        self.news(record.peer)
        return record

    def _make_room(self) -> None:
        """Let the oldest record go that no view needs; the views are smaller than the book."""
        spare = [(e.ends_us, p) for p, e in self._entries.items() if not self.needed(p)]
        if spare:
            del self._entries[min(spare)[1]]

    def reach(self, up: LinkUp, now_us: int) -> tuple[str, ...]:
        """Where the peer of a link can be dialled, by its record or by what was dialled."""
        entry = self.get(up.peer, now_us)
        if entry is not None and entry.record.addresses:
            return entry.record.addresses
        address = up.address.removeprefix("mfd://").partition("/")[0]
        return (address,) if up.outbound and is_address(address) else ()

    def get(self, peer: bytes, now_us: int) -> Entry | None:
        """The valid record of a peer."""
        entry = self._entries.get(peer)
        return entry if entry is not None and now_us < entry.ends_us else None

    def item(self, peer: bytes, now_us: int) -> Item | None:
        """The record of a peer as it is passed on; None once it has ended."""
        entry = self.get(peer, now_us)
        if entry is None:
            return None
        return entry.record.sealed, -((entry.born_us - now_us) // SECOND_US)  # rounded up

    def expire(self, now_us: int) -> None:
        """Forget what ended long ago."""
        keep_us = self._config.peer_record_valid_us
        self._entries = {p: e for p, e in self._entries.items() if now_us < e.ends_us + keep_us}

    def view(self) -> Mapping[bytes, Entry]:
        """Everything remembered, for checks: read only."""
        return self._entries

    def valid(self, now_us: int) -> Iterator[PeerRecord]:
        """All records that hold now."""
        return (e.record for e in self._entries.values() if now_us < e.ends_us)
