"""Broadcast of the few things that everybody must hear: trees that grow by themselves and mend.

A new rumour goes on at once over links that are eager in its tree; over lazy ones only its id. Who
gets a rumour twice makes that link lazy; who hears of an id whose rumour does not come makes one
eager again.

Rules of this file: an id is the digest of kind and payload. A rumour is judged before it goes on,
delivered at most once, never sent after its end, and what is remembered is bounded and expires.
Source: spec/membership.md, section "Gossip"; Plumtree (Leitao et al. 2007), own words.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

from blake3 import blake3

from mfd.core.bucket import Bucket
from mfd.core.context import Context
from mfd.core.memberframes import (
    IDS_MAX,
    Graft,
    IHave,
    MemberFrame,
    Prune,
    Rumour,
    encode_member,
)
from mfd.core.trees import Trees

__all__ = ["Gossip", "Held", "Judge", "rumour_id"]

SECOND_US = 1_000_000
HOPS_MAX = 255
MISSING_MAX = 1_024  # ids announced whose rumour has not come
SOURCES_MAX = 8  # links remembered for each

Judge = Callable[[int, bytes], int]
"""Check a rumour, carry it out, return for how many seconds it matters; 0: not to be passed on.

Raises: PacketError for one that no honest neighbour passes on.
"""


def rumour_id(kind: int, payload: bytes) -> bytes:
    """Name a rumour by its content."""
    return blake3(bytes((kind,)) + payload).digest()


@dataclass(frozen=True, slots=True)
class Held:
    """A rumour that can be had from this peer."""

    kind: int
    payload: bytes
    born_us: int  # on this peer's clock, as far as its age tells
    ends_us: int
    hops: int
    tree: bytes


@dataclass(slots=True)
class _Link:
    """What goes to and comes from one neighbour."""

    ids: list[bytes] = field(default_factory=list)  # to be announced
    takes: Bucket = field(default_factory=lambda: Bucket(1, 1))
    gives: Bucket = field(default_factory=lambda: Bucket(1, 1))


class Gossip:
    """Rumours of one peer."""

    def __init__(self, ctx: Context, judge: Judge) -> None:
        self._ctx = ctx
        self._judge = judge
        self._links: dict[int, _Link] = {}
        self._trees = Trees(ctx)
        self._held: dict[bytes, Held] = {}
        self._bytes = 0
        self._seen: dict[bytes, int] = {}  # id -> until when it is remembered
        self._missing: dict[bytes, list[int]] = {}  # id -> links that have it
        self._flushing = False
        self._sweeping = False

    @property
    def held(self) -> Mapping[bytes, Held]:
        """Rumours by id: read only."""
        return self._held

    @property
    def seen(self) -> Mapping[bytes, int]:
        """Ids that are not taken again, and until when: read only."""
        return self._seen

    def eager(self, tree: bytes) -> tuple[int, ...]:
        """Links over which rumours of a tree go at once."""
        return tuple(link for link in self._links if self._trees.is_eager(tree, link))

    # links

    def link_up(self, link: int) -> None:
        """A new neighbour is part of every tree until it proves to be one too many."""
        config = self._ctx.config
        rate, burst = config.rumours_per_s, config.rumours_burst
        self._links[link] = _Link(takes=Bucket(rate, burst), gives=Bucket(rate, burst))

    def link_down(self, link: int) -> None:
        """A neighbour is gone; what it had announced must come from others."""
        self._links.pop(link, None)
        self._trees.link_down(link)
        for links in self._missing.values():
            if link in links:
                links.remove(link)

    # saying

    def publish(self, kind: int, payload: bytes, seconds: int) -> bytes:
        """Tell everybody."""
        ident = rumour_id(kind, payload)
        if ident not in self._seen:
            tree = self._trees.choose(ident)
            held = self._keep(ident, Rumour(kind, 0, 0, tree, payload), seconds)
            self._push(held, self.eager(tree))
            self._announce(ident, tree)
        return ident

    def _push(self, held: Held, links: Iterable[int]) -> None:
        age_s = -((held.born_us - self._ctx.now_us) // SECOND_US)  # rounded up
        hops = min(held.hops + 1, HOPS_MAX)
        frame = Rumour(held.kind, max(age_s, 0), hops, held.tree, held.payload)
        if self._ctx.now_us < held.ends_us:
            for link in links:
                self._send(link, frame)

    def _send(self, link: int, frame: MemberFrame) -> None:
        self._ctx.send(link, encode_member(frame))

    def _keep(self, ident: bytes, frame: Rumour, seconds: int) -> Held:
        config = self._ctx.config
        born_us = self._ctx.now_us - frame.age_s * SECOND_US
        ends_us = born_us + seconds * SECOND_US
        held = Held(frame.kind, frame.payload, born_us, ends_us, frame.hops, frame.tree)
        self._remember(ident, ends_us + seconds * SECOND_US)
        self._held[ident] = held
        self._bytes += len(frame.payload)
        while len(self._held) > config.rumours_max or self._bytes > config.rumour_bytes_max:
            self._drop(min(self._held, key=lambda known: self._held[known].ends_us))
        self._sweep_later()
        return held

    def _remember(self, ident: bytes, until_us: int) -> None:
        self._seen[ident] = until_us
        if len(self._seen) > self._ctx.config.rumour_ids_max:
            del self._seen[min(self._seen, key=lambda known: self._seen[known])]

    def _drop(self, ident: bytes) -> None:
        self._bytes -= len(self._held.pop(ident).payload)

    # hearing

    def on_rumour(self, link: int, frame: Rumour) -> None:
        """Judge a rumour and pass it on; or make the link lazy in its tree, if it was known.

        Raises: PacketError, from the judge.
        """
        state = self._links[link]
        ident = rumour_id(frame.kind, frame.payload)
        if ident in self._seen:
            self._on_known(link, self._held.get(ident), frame.tree)
            return
        if not state.takes.take(self._ctx.now_us):
            self._ctx.count("rumours_over_rate")
            return  # not remembered: it comes again from others, or with the next comparison
        seconds = self._judge(frame.kind, frame.payload)
        self._missing.pop(ident, None)
        if seconds <= frame.age_s:
            self._remember(ident, self._ctx.now_us + self._ctx.config.rumour_refused_us)
            self._sweep_later()
            self._ctx.count("rumours_ended")
            return
        held = self._keep(ident, frame, seconds)
        self._trees.grow(frame.tree, ident, link, frame.hops, held.born_us)
        self._ctx.count("rumours_heard")
        self._push(held, [other for other in self.eager(held.tree) if other != link])
        self._announce(ident, held.tree, link)

    def _on_known(self, link: int, held: Held | None, tree: bytes) -> None:
        """One copy too many: prune. Where two began the same, two trees meet, and both stay."""
        self._ctx.count("rumours_known")
        if (held is None or held.tree == tree) and self._trees.make_lazy(tree, link):
            self._send(link, Prune(tree))

    def _announce(self, ident: bytes, tree: bytes, source: int | None = None) -> None:
        """Offer a rumour over the lazy links, a little later and together with others."""
        for link, state in self._links.items():
            lazy = not self._trees.is_eager(tree, link)
            if lazy and link != source and len(state.ids) < IDS_MAX:
                state.ids.append(ident)
        if not self._flushing:
            self._flushing = True
            self._ctx.after(self._ctx.config.rumour_batch_us, self._flush)

    def _flush(self) -> None:
        self._flushing = False
        for link, state in self._links.items():
            ids, state.ids = state.ids, []
            self.offer(link, ids)

    def offer(self, link: int, ids: Iterable[bytes]) -> None:
        """Announce what is still held of these ids."""
        live = [i for i in ids if i in self._held and self._ctx.now_us < self._held[i].ends_us]
        for at in range(0, len(live), IDS_MAX):
            self._send(link, IHave(tuple(live[at : at + IDS_MAX])))

    def on_ihave(self, link: int, ids: Iterable[bytes]) -> None:
        """Wait for what is announced to come over the tree; then fetch it."""
        for ident in ids:
            if ident in self._seen:
                continue
            links = self._missing.get(ident)
            if links is None:
                if len(self._missing) >= MISSING_MAX:
                    self._ctx.count("rumours_over_rate")
                    return
                links = self._missing[ident] = []
                self._ctx.after(self._ctx.config.graft_us, partial(self._graft, ident))
            if link not in links and len(links) < SOURCES_MAX:
                links.append(link)

    def _graft(self, ident: bytes) -> None:
        """Ask the next neighbour that has announced it; give up after the last."""
        links = self._missing.get(ident)
        if not links:
            self._missing.pop(ident, None)
            return
        self.fetch(links.pop(0), [ident])
        self._ctx.after(self._ctx.config.graft_us, partial(self._graft, ident))

    def fetch(self, link: int, ids: Iterable[bytes]) -> None:
        """Ask for rumours that are not known here."""
        wanted = tuple(ident for ident in ids if ident not in self._seen)[:IDS_MAX]
        if wanted:
            self._ctx.count("rumours_grafted")
            self._send(link, Graft(wanted))

    def on_graft(self, link: int, ids: Iterable[bytes]) -> None:
        """Send what is asked for, at the rate at which it would be taken."""
        state = self._links[link]
        for ident in ids:
            held = self._held.get(ident)
            if held is not None and state.gives.take(self._ctx.now_us):
                self._trees.make_eager(held.tree, link)
                self._push(held, (link,))

    def on_prune(self, link: int, tree: bytes) -> None:
        """The neighbour hears it from others first."""
        self._trees.make_lazy(tree, link)

    # forgetting

    def _sweep_later(self) -> None:
        if not self._sweeping:
            self._sweeping = True
            self._ctx.after(self._ctx.config.rumour_sweep_us, self._sweep)

    def _sweep(self) -> None:
        now_us = self._ctx.now_us
        for ident in [i for i, held in self._held.items() if held.ends_us <= now_us]:
            self._drop(ident)
        self._seen = {i: until for i, until in self._seen.items() if until > now_us}
        self._sweeping = False
        if self._seen:
            self._sweep_later()
