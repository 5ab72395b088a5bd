"""Who may be next: the holders that routing tells of, and those that SEEK finds beyond them.

Rules of this file: it decides when a search is worth its frames; which of the holders comes next is
the walk's decision. It forgets with a restart.
Source: spec/walk.md, W-03, W-14, W-15, W-43.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from mfd.core.ages import walkers_of
from mfd.core.context import Context
from mfd.core.custody import Role, Version, Walker
from mfd.core.names import beneath
from mfd.core.policy import Place, rank, reason
from mfd.core.routing import Source
from mfd.core.seek import MARK_BYTES, Seeker
from mfd.core.walk import is_free
from mfd.core.walkers import Walkers

__all__ = ["Choice", "going_home"]

EVERY = 4  # of so many choices one is made among holders that SEEK has brought
DOUBLINGS = 6  # of the time between two searches in vain for the same walker


@dataclass(slots=True)
class _Sought:
    """The last search for a walker."""

    version: bytes
    until_us: int
    in_vain: int = 0
    found: frozenset[bytes] = frozenset()  # brought by it, to be asked first


@dataclass(frozen=True, slots=True)
class _None:
    """A search that found nobody but those whom it was not looking for."""

    but: frozenset[bytes]  # marks
    until_us: int


def going_home(walker: Walker) -> bool:
    """Say whether a walker's laps are over."""
    version = walker.version
    return version is not None and version.manifest.progress.lap >= walker.plan.laps


class Choice:
    """Holders for the walkers owned here."""

    def __init__(
        self,
        ctx: Context,
        holders: Callable[[Sequence[str]], Sequence[Source]],
        seeker: Seeker,
        holdings: Collection[str],
        walkers: Walkers,
    ) -> None:
        self._ctx = ctx
        self._holdings = holdings
        self._walkers = walkers
        self._holders = holders
        self._seeker = seeker
        self._sought: dict[bytes, _Sought] = {}  # by walker
        self._none: dict[tuple[str, ...], _None] = {}  # by names

    def holders(self, walker: Walker) -> list[Source]:
        """Holders of what the plan names, in the order in which they are to be asked."""
        now_us, me = self._ctx.now_us, self._ctx.me
        walker.unfit = {h: t for h, t in walker.unfit.items() if t > now_us}
        but = {*walker.unfit, *(() if self.data(walker) else (me,))}
        known = [s for s in self._holders(walker.plan.names) if s.holder not in but]
        known = rank(walker.plan, known, self._seen(walker, known), self._place(walker))
        if is_free(walker.plan):
            return known  # what chance has drawn stays
        first, apart = self._brought(walker), self.apart(walker)
        # stable: else as ranked
        return sorted(known, key=lambda s: (s.holder in apart, s.holder not in first))

    def _seen(self, walker: Walker, known: Sequence[Source]) -> list[Source]:
        """Those of the holders that were visited in this lap."""
        version = walker.version
        visited = set(version.manifest.progress.visited) if version is not None else set()
        return [s for s in known if s.holder[:MARK_BYTES] in visited]

    def _place(self, walker: Walker) -> Place:
        manifest = walker.version.manifest if walker.version is not None else None
        own = walker.id if walkers_of(walker.plan) > 1 else b""
        if manifest is None:
            return Place(self._ctx.me, walker=own)
        return Place(self._ctx.me, manifest.seq, own, manifest.progress.stops)

    def apart(self, walker: Walker) -> set[bytes]:
        """Holders left to siblings: where they begin, and to whom they were handed last (W-43)."""
        out: set[bytes] = set()
        version = walker.version
        begun = version is not None and version.manifest.progress.stops > 0
        for other in self._walkers.siblings(walker):
            stops = other.version.manifest.progress.stops if other.version is not None else 0
            if not begun and other.role is Role.OWN and (stops or other.busy):
                out.add(self._ctx.me)
            if other.went and (other.role is Role.SHADOW or not (begun or stops)):
                out.add(other.went)
        return out

    def data(self, walker: Walker) -> list[str]:
        """Return the names held here on which this walker may train."""
        return beneath(walker.plan.names, self._holdings, but=walker.plan.verify)

    def measures(self, walker: Walker) -> list[str]:
        """Return the names held here on which its versions are measured."""
        return beneath(walker.plan.verify, self._holdings)

    def _brought(self, walker: Walker) -> frozenset[bytes]:
        sought = self._sought.get(walker.id)
        if sought is None or walker.version is None or sought.version != walker.version.digest:
            return frozenset()
        return sought.found

    def why(self, walker: Walker, target: bytes, otherwise: str) -> str:
        """Say why a holder was chosen."""
        holders = self.holders(walker)
        source = next((s for s in holders if s.holder == target), None)
        if source is None or going_home(walker):
            return otherwise
        seen = self._seen(walker, holders)
        left = [s for s in holders if s not in seen] if not is_free(walker.plan) else holders
        told = reason(walker.plan, source, left, seen, self._place(walker))
        apart = self.apart(walker) & {s.holder for s in left}
        if target in self._brought(walker) and not is_free(walker.plan):
            told = f"found by SEEK, so asked first; {told}"
        return f"{told}; {len(apart)} left to siblings" if apart else told

    def verifiers(self, walker: Walker) -> Sequence[Source]:
        """Holders of what the plan measures on."""
        return self._holders(walker.plan.verify)

    def forget(self, walker: Walker) -> None:
        """The walker has come anew."""
        self._sought.pop(walker.id, None)

    # searching

    def seeks(self, walker: Walker, version: Version, then: Callable[[], None]) -> bool:
        """Begin or join a search if one is due; `then` is called when it is over."""
        why = self._why(walker, version)
        if not why:
            return False
        last = self._sought.get(walker.id)
        in_vain = last.in_vain if last is not None and last.version == version.digest else 0
        sought = self._sought[walker.id] = _Sought(version.digest, self._ctx.now_us, in_vain)
        but = self._not_sought(walker, version)
        walker.activity = f"seeking holders of {' or '.join(walker.plan.names)}: {why}"
        self._seeker.seek(
            self._names(walker, in_vain),
            but,
            partial(self._over, walker, sought, but, then),
        )
        return True

    def _not_sought(self, walker: Walker, version: Version) -> frozenset[bytes]:
        """Marks of all that are known already, were visited, or did not want it a moment ago."""
        known = (s.holder for s in self._holders(walker.plan.names))
        peers = (*known, *walker.shunned, *version.manifest.progress.visited, self._ctx.me)
        return frozenset(peer[:MARK_BYTES] for peer in peers)

    def _names(self, walker: Walker, turn: int) -> Sequence[str]:
        """A SEEK has room for few names: take turns."""
        names = walker.plan.names
        return names[turn % len(names) :] + names[: turn % len(names)]

    def _over(
        self,
        walker: Walker,
        sought: _Sought,
        but: frozenset[bytes],
        then: Callable[[], None],
        found: bool,
    ) -> None:
        if self._sought.get(walker.id) is not sought:
            return  # the walker has been away since: whoever owns it now decides anew
        now = {s.holder for s in self._holders(walker.plan.names)}
        sought.found = frozenset(h for h in now if h[:MARK_BYTES] not in but)
        found = found and bool(sought.found)
        sought.in_vain = 0 if found else sought.in_vain + 1
        again_us, now_us = self._ctx.config.seek_again_us, self._ctx.now_us
        if not found:
            self._none = {n: none for n, none in self._none.items() if none.until_us > now_us}
            self._none[walker.plan.names] = _None(but, now_us + again_us)
            sought.until_us = now_us + (again_us << min(sought.in_vain - 1, DOUBLINGS))
        then()

    def _why(self, walker: Walker, version: Version) -> str:
        """Say what a search is for, or nothing: not due, or routing knows all there are."""
        plan, progress = walker.plan, version.manifest.progress
        if progress.lap >= plan.laps or not self._due(walker, version):
            return ""
        known = self._holders(plan.names)
        for source in self._seeker.sources(plan.names):
            if source.holder in walker.shunned:
                self._seeker.forget(source.holder)  # it did not answer, or did not want it
        none = self._none.get(plan.names)
        fresh = none is not None and self._ctx.now_us < none.until_us
        if none is not None and fresh and none.but <= self._not_sought(walker, version):
            return ""
        before = progress.holders or plan.min_holders
        if len(known) >= before and not self._may_be_more(plan.names, known):
            return ""
        fit = [s.holder for s in known if s.holder not in walker.shunned]
        if not progress.stops and len(fit) < plan.min_holders:
            return f"{len(fit)} of {plan.min_holders} are known"
        if plan.mode == "fedavg":
            return "for a round with all of them"
        marks = {holder[:MARK_BYTES] for holder in fit if holder != self._ctx.me}
        if not marks - set(progress.visited):
            return "all that are known were visited"
        if self._brought(walker):
            return ""
        if progress.stops % EVERY == EVERY - 1:
            return "every fourth choice is made so"
        return ""

    def _due(self, walker: Walker, version: Version) -> bool:
        last = self._sought.get(walker.id)
        if last is None or last.version != version.digest:
            return True
        return self._ctx.now_us >= last.until_us

    def _may_be_more(self, names: Sequence[str], known: Sequence[Source]) -> bool:
        """Routing tells the nearest few: fewer are all there are, unless tables are full."""
        full = self._ctx.config.sources_per_name
        return not known or any(len(self._holders((name,))) >= full for name in names)
