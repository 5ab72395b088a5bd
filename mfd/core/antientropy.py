"""Comparing notes with one neighbour at a time, so that no rumour stays unheard by half a network.

    a: Digest(root) -> b; where they differ, b: Buckets(sums) -> a: Sync(buckets, ids)
    -> b fetches what it lacks, and offers what a lacks

Rules of this file: sums are over ids alone, never over ages; what is sent is bounded.
Source: spec/membership.md, section "Comparing notes".
"""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3

from mfd.core.context import Context
from mfd.core.gossip import Gossip
from mfd.core.memberframes import BUCKETS, IDS_MAX, Buckets, Digest, Sync, encode_member
from mfd.core.views import pick, shuffle

__all__ = ["AntiEntropy"]

SUM_BYTES = 8


class AntiEntropy:
    """The comparisons of one peer."""

    def __init__(self, ctx: Context, gossip: Gossip) -> None:
        self._ctx = ctx
        self._gossip = gossip
        self._links: list[int] = []
        self._timed = False

    def link_up(self, link: int) -> None:
        """One more to compare with: at once, since it may come from another island."""
        self._links.append(link)
        if self._gossip.held:
            self._compare(link)
        if not self._timed:
            self._timed = True
            self._later()

    def link_down(self, link: int) -> None:
        """One less."""
        self._links.remove(link)

    def _later(self) -> None:
        period_us = self._ctx.config.compare_us
        jitter_us = self._ctx.dice.below(period_us // 2 + 1)
        self._ctx.after(period_us * 3 // 4 + jitter_us, self._round)

    def _round(self) -> None:
        link = pick(self._ctx.dice, self._links)
        if link is None:
            self._timed = False
            return
        self._compare(link)
        self._later()

    def _compare(self, link: int) -> None:
        self._ctx.send(link, encode_member(Digest(_root(self._sums()))))

    def _sums(self) -> bytes:
        """XOR of the first eight bytes of all ids of a bucket, which is their first byte."""
        sums = [0] * BUCKETS
        for ident, held in self._gossip.held.items():
            if self._ctx.now_us < held.ends_us:
                sums[ident[0]] ^= int.from_bytes(ident[:SUM_BYTES], "little")
        return b"".join(value.to_bytes(SUM_BYTES, "little") for value in sums)

    def on_digest(self, link: int, frame: Digest) -> None:
        """Equal: nothing to say."""
        sums = self._sums()
        if _root(sums) != frame.root:
            self._ctx.send(link, encode_member(Buckets(sums)))

    def on_buckets(self, link: int, frame: Buckets) -> None:
        """Say what we hold where the sums differ: as many buckets as fit, from a random one on."""
        sums = self._sums()
        start = self._ctx.dice.below(BUCKETS)
        chosen, ids = 0, list[bytes]()
        for step in range(BUCKETS):
            bucket = (start + step) % BUCKETS
            at = slice(bucket * SUM_BYTES, (bucket + 1) * SUM_BYTES)
            if sums[at] == frame.sums[at]:
                continue
            here = list(self._in_buckets((bucket,)))
            if len(ids) + len(here) > IDS_MAX:
                if chosen:
                    break
                here = shuffle(self._ctx.dice, here)[:IDS_MAX]  # the rest, with luck, next time
            ids += here
            chosen |= 1 << bucket
        if chosen:
            bits = chosen.to_bytes(BUCKETS // 8, "little")
            self._ctx.send(link, encode_member(Sync(bits, tuple(ids))))

    def on_sync(self, link: int, frame: Sync) -> None:
        """Fetch what is new in these buckets, and offer what the other does not have."""
        self._gossip.fetch(link, frame.ids)
        bits = int.from_bytes(frame.buckets, "little")
        theirs = set(frame.ids)
        chosen = [bucket for bucket in range(BUCKETS) if bits >> bucket & 1]
        lacking = [ident for ident in self._in_buckets(chosen) if ident not in theirs]
        self._gossip.offer(link, lacking[: 4 * IDS_MAX])

    def _in_buckets(self, buckets: Iterable[int]) -> Iterable[bytes]:
        wanted = set(buckets)
        return (ident for ident in self._gossip.held if ident[0] in wanted)


def _root(sums: bytes) -> bytes:
    return blake3(sums).digest(16)
