"""How many frames of each type a neighbour may send, and what becomes of one that floods.

Rules of this file: what no honest neighbour exceeds, even in a storm, is the limit. One frame too
many is dropped and counted; many, or one that cannot be missed, end the link, and the peer is left
alone for a while. Frames of circuits are bounded by credit.
Source: spec/transfer.md, section "Rates"; overlay.md, 4.4.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mfd.core.bucket import Bucket
from mfd.core.context import Context
from mfd.core.events import LinkUp

__all__ = ["MESSAGES", "RATES", "RECORDS", "UPDATE", "Rates"]

UPDATE = 4
RECORDS = -1  # source records not heard before, in UPDATE: a signature check each
MESSAGES = 0  # custody messages, whatever circuit they come in: each costs a signature check
# type byte: (name, a second, at once); what is not named here is bounded elsewhere
RATES: dict[int, tuple[str, int, int]] = {
    RECORDS: ("new records in UPDATE", 200, 4_096),
    MESSAGES: ("custody messages", 200, 2_048),
    1: ("PING", 10, 128),
    2: ("PONG", 10, 128),
    UPDATE: ("entries of UPDATE", 512, 16_384),
    5: ("SEQNO_REQ", 64, 4_096),
    12: ("SEEK", 64, 256),
    13: ("FOUND", 128, 1_024),
    16: ("OPEN", 100, 512),
    32: ("JOIN", 2, 16),
    33: ("FORWARD_JOIN", 20, 512),
    34: ("ASK", 2, 16),
    35: ("REPLY", 2, 16),
    36: ("SHUFFLE", 20, 512),
    37: ("SHUFFLE_REPLY", 20, 512),
    38: ("DISCONNECT", 2, 16),
    39: ("PROBE", 20, 256),
    40: ("PROBE_REPLY", 20, 256),
    41: ("RUMOUR", 100, 2_048),
    42: ("IHAVE", 40, 512),
    43: ("GRAFT", 40, 2_048),
    44: ("PRUNE", 100, 2_048),
    45: ("DIGEST", 2, 64),
    46: ("BUCKETS", 2, 64),
    47: ("SYNC", 2, 64),
    48: ("CALL", 2, 16),
    49: ("CALLED", 2, 16),
}
STRIKES_PER_S, STRIKES_BURST = 1, 128  # frames dropped until the link ends
FLOODED_MAX = 256  # peers that flooded, remembered


@dataclass(slots=True)
class _Link:
    """One neighbour."""

    peer: bytes
    buckets: dict[int, Bucket] = field(default_factory=dict)  # by type, once it has sent some
    ended: bool = False
    strikes: Bucket = field(default_factory=lambda: Bucket(STRIKES_PER_S, STRIKES_BURST))


class Rates:
    """What neighbours have sent lately. `close(link, reason)` ends a link."""

    def __init__(self, ctx: Context, close: Callable[[int, str], None]) -> None:
        self._ctx = ctx
        self._close = close
        self._links: dict[int, _Link] = {}
        self._flooded: dict[bytes, int] = {}  # peer -> until when it is left alone

    def link_up(self, up: LinkUp) -> None:
        """A link stands; one to a peer that has flooded is closed."""
        self._links[up.link] = _Link(up.peer)
        if self._ctx.now_us < self._flooded.get(up.peer, 0):
            self._close(up.link, "it has flooded this peer a moment ago")

    def link_down(self, link: int) -> None:
        """Forget it."""
        self._links.pop(link, None)

    def take(self, link: int, kind: int, amount: int = 1) -> bool:
        """Say whether a frame is looked at; `amount` counts what is in it."""
        row, state = RATES.get(kind), self._links.get(link)
        if row is None or state is None:
            return True
        if state.ended:
            return False
        name, per_s, burst = row
        bucket = state.buckets.get(kind)
        if bucket is None:
            times = self._ctx.config.frame_rates
            bucket = state.buckets[kind] = Bucket(times * per_s, times * burst)
        now_us = self._ctx.now_us
        if bucket.take(now_us, amount):
            return True
        self._ctx.count("frames_over_rate")
        if kind in (UPDATE, RECORDS) or not state.strikes.take(now_us):
            self._end(link, state, name)
        return False

    def take_update(self, link: int, entries: int, strangers: int) -> bool:
        """Say whether an UPDATE is looked at; records that are no strangers cost little."""
        return self.take(link, UPDATE, entries) and self.take(link, RECORDS, strangers)

    def _end(self, link: int, state: _Link, name: str) -> None:
        """Differences were lost, or too much came: this link is of no use any more."""
        state.ended = True
        until_us = self._ctx.now_us + self._ctx.config.flooded_us
        self._ctx.count("links_flooded")
        self._flooded.pop(state.peer, None)
        self._flooded[state.peer] = until_us
        if len(self._flooded) > FLOODED_MAX:
            del self._flooded[next(iter(self._flooded))]
        self._close(link, f"it floods: more {name} than a neighbour may send")
