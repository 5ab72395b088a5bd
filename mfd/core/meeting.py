"""Where siblings meet: which versions are at hand, what a merge of them weighs, and its commit.

Rules of this file: nobody is waited for; what a sibling left here is a cache, and a merge that
fails costs nothing but its time.
Source: spec/walk.md, section "Siblings".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import exp

from mfd.core.ages import (
    Ages,
    ages_of,
    fits,
    gate_of,
    has_news,
    joined,
    room_for,
    rule_of,
    weights,
    with_ages,
)
from mfd.core.blocks import base_of
from mfd.core.choice import Choice, going_home
from mfd.core.commits import Commits
from mfd.core.context import Context, Timer
from mfd.core.custody import Role, Version, Walker
from mfd.core.notices import Notices
from mfd.core.parking import Parking
from mfd.core.tasks import relayer
from mfd.core.walk import rests
from mfd.core.walkers import Walkers
from mfd.packet.manifest import Manifest
from mfd.packet.objects import object_digest
from mfd.packet.plan import encode_plan
from mfd.packet.task import LEFT_OUT, LearnResult, LearnTask, Sibling

__all__ = ["Meetings"]

SEQ_AHEAD_MAX = 1 << 20  # of a sibling: above, it would use up the numbers of its siblings
KEEPERS = (Role.OWN, Role.SHADOW, Role.DONE, Role.RELEASED)
MERGED = "merged"  # claim of a version that is a merge: with how many others
NAME_DIGITS = 8  # of a sibling's id, when it is told


@dataclass(frozen=True, slots=True)
class _Meeting:
    """The versions to be merged, in the order of their digests; one of them is the walker's own."""

    versions: tuple[Version, ...]
    ages: tuple[Ages, ...]
    shares: tuple[tuple[float, ...], ...]  # of each version, by layer

    @property
    def key(self) -> bytes:
        return object_digest(b"".join(version.digest for version in self.versions))


class Meetings:
    """Merges the walkers owned here with what their siblings have left."""

    def __init__(
        self,
        ctx: Context,
        walkers: Walkers,
        *,
        choice: Choice,
        notices: Notices,
        parking: Parking,
        commits: Commits,
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._choice = choice
        self._notices = notices
        self._parking = parking
        self._commits = commits
        self._sweeps: dict[bytes, Timer] = {}  # by plan: when old versions are forgotten

    # what is at hand

    def begins(self, walker: Walker, version: Version) -> bool:
        """Begin to merge, if it is time to and something new is at hand."""
        siblings = self._walkers.siblings(walker)
        if not siblings or not self._is_due(walker, version):
            return False
        self._forget(walker, siblings)
        meeting = self._meeting(version, siblings)
        if meeting is None or meeting.key == walker.met:
            return False
        walker.met = meeting.key
        walker.busy = True
        walker.siblings = tuple(v for v in meeting.versions if v is not version)
        walker.activity = f"merging with {len(walker.siblings)} siblings"
        self._ctx.learn(
            self._task(walker, version, meeting),
            partial(self._merged, walker, version, meeting),
            partial(self._failed, walker, version),
        )
        return True

    def _is_due(self, walker: Walker, version: Version) -> bool:
        """Once after each stop, in `gossip` on arrival; at home until there is nothing new."""
        manifest, me, plan = version.manifest, self._ctx.me, walker.plan
        if going_home(walker):
            return me == plan.home
        if plan.mode == "gossip":
            return not rests(manifest, me) and manifest.trainer != me
        is_stop = bool(manifest.trained) and MERGED not in manifest.claims
        return manifest.trainer == me and is_stop

    def _at_hand(self, version: Version, siblings: Sequence[Walker]) -> list[Version]:
        """Versions with something new, as many as the ages of a merge have room for."""
        mine = ages_of(version.manifest)
        seen = set(mine)
        found: list[Version] = []
        for sibling in self._newest_first(siblings):
            other = sibling.version
            if (
                other is not None
                and _is_like(version.manifest, other.manifest)
                and fits(sibling.plan, other.manifest)
                and has_news(mine, ages := ages_of(other.manifest))
                and all(digest in self._walkers.objects for digest in other.objects)
                and len(seen | set(ages)) <= room_for(sibling.plan, len(other.manifest.layers))
            ):
                found.append(other)
                seen |= set(ages)
        return found[: self._ctx.config.siblings_max]

    def _meeting(self, version: Version, siblings: Sequence[Walker]) -> _Meeting | None:
        layers, others = len(version.manifest.layers), self._at_hand(version, siblings)
        versions = sorted((version, *others), key=lambda v: v.digest)
        if len({v.digest for v in versions}) < 2:
            return None
        ages = [ages_of(v.manifest) for v in versions]
        shares = weights(ages, layers, by_age=self._rule_of(siblings[0]) == "age")
        base = base_of(siblings[0].plan, layers)
        for each in shares:  # what never learns is not merged either, whatever ages say
            each[:base] = [0.0] * base
        taken = [n for n, each in enumerate(shares) if any(each) or versions[n] is version]
        if len(taken) < 2:
            return None
        return _Meeting(
            tuple(versions[n] for n in taken),
            tuple(ages[n] for n in taken),
            tuple(tuple(shares[n]) for n in taken),
        )

    @staticmethod
    def _rule_of(sibling: Walker) -> str:
        return rule_of(sibling.plan).name

    def _newest_first(self, siblings: Sequence[Walker]) -> list[Walker]:
        """Those whose version is kept here, that which left last first."""
        here = [s for s in siblings if s.role in KEEPERS and s.version is not None]
        for sibling in here:
            if sibling.left_us is None:
                sibling.left_us = self._ctx.now_us  # a restart has forgotten it
        owned = (Role.OWN, Role.DONE)
        return sorted(here, key=lambda s: (s.role not in owned, -(s.left_us or 0), s.id))

    def _forget(self, walker: Walker, others: Sequence[Walker]) -> None:
        """Let go of released versions that are old, or too many: they are caches."""
        now_us, config = self._ctx.now_us, self._ctx.config
        again = partial(self._forget_again, walker)
        if walker.identity.genesis.plan not in self._sweeps:
            timer = self._ctx.after(config.sibling_keep_us + 1, again)
            self._sweeps[walker.identity.genesis.plan] = timer
        released = [s for s in self._newest_first([walker, *others]) if s.role is Role.RELEASED]
        for place, sibling in enumerate(released):
            age_us = now_us - (sibling.left_us or 0)
            old = place >= config.siblings_max or age_us > config.sibling_keep_us
            if old and self._may_go(sibling) and not (sibling.saving or sibling.pinned):
                sibling.version, sibling.earlier = None, ()  # nor are its objects bases any more
                self._walkers.save(sibling, then=lambda: None)

    def _forget_again(self, walker: Walker) -> None:
        """Look once more when what is kept now has become old, as long as something may go."""
        del self._sweeps[walker.identity.genesis.plan]
        siblings = self._walkers.siblings(walker)
        stay = (Role.DONE, Role.FENCED)
        kept = (s for s in (walker, *siblings) if s.version is not None and s.role not in stay)
        if any(s.role is not Role.RELEASED or self._may_go(s) for s in kept):
            self._forget(walker, siblings)

    def _may_go(self, sibling: Walker) -> bool:
        return sibling.role is Role.RELEASED and sibling.plan.home != self._ctx.me

    # merging

    def _task(self, walker: Walker, version: Version, meeting: _Meeting) -> LearnTask:
        plan, rule = walker.plan, rule_of(walker.plan)
        gate = gate_of(plan)
        names = self._choice.measures(walker) or self._choice.data(walker)
        layers = len(version.manifest.layers)
        return LearnTask(
            kind="merge",
            plan=encode_plan(plan),
            layers=version.manifest.layers,
            name=names[0] if names else "",
            siblings=tuple(
                Sibling(v.manifest.layers, sum(shares) / layers, shares)
                for v, shares in zip(meeting.versions, meeting.shares, strict=True)
            ),
            rule="mean" if rule.name == "age" else rule.name,
            radius=rule.radius * exp(-min(version.manifest.progress.lap / plan.laps, 1.0)),
            gate=gate if names else None,
        )

    def _merged(
        self, walker: Walker, version: Version, meeting: _Meeting, result: LearnResult
    ) -> None:
        walker.siblings = ()
        if walker.version is not version or walker.role is not Role.OWN:
            return  # fenced meanwhile
        out = _left_out(meeting, result.claims)
        told = _told(version, meeting, out)
        kept = [n for n, v in enumerate(meeting.versions) if v is version or v.digest not in out]
        if len(kept) < 2:
            self._notices.tell(walker, MERGED, told)
            self._parking.again(walker, 0)
            return
        heads = [meeting.versions[n] for n in kept if meeting.versions[n] is not version]
        made = replace(
            relayer(version.manifest, result),
            seq=max(v.manifest.seq for v in (version, *heads)) + 1,
            parents=(version.digest, *(v.digest for v in heads)),
            claims={MERGED: len(heads)},
        )
        manifest = with_ages(made, joined([meeting.ages[n] for n in kept]))
        digests = tuple(ref.digest for ref in result.layers)
        then = partial(self._told, walker, told)
        self._commits.commit(walker, version, manifest, digests, then)

    def _told(self, walker: Walker, told: Mapping[str, str | int | float]) -> None:
        self._notices.tell(walker, MERGED, told)
        self._parking.again(walker, 0)

    def _failed(self, walker: Walker, version: Version, reason: str) -> None:
        walker.siblings = ()
        if walker.version is version and walker.role is Role.OWN:
            self._notices.tell(walker, MERGED, {"with": "", "left_out": reason})
            self._parking.again(walker, 0)


def _is_like(mine: Manifest, other: Manifest) -> bool:
    """Whether a version can be of the same model, and leaves room for numbers above its own."""
    names = [(ref.index, ref.name) for ref in mine.layers]
    same = names == [(ref.index, ref.name) for ref in other.layers] and mine.model == other.model
    return same and other.seq <= mine.seq + SEQ_AHEAD_MAX


def _left_out(meeting: _Meeting, claims: Mapping[str, float]) -> dict[bytes, str]:
    """Versions that did not pass the gate, and why."""
    codes = {n: claims.get(f"out{n}") for n in range(len(meeting.versions))}
    return {
        meeting.versions[n].digest: LEFT_OUT.get(int(code), "it was left out")
        for n, code in codes.items()
        if code is not None
    }


def _told(
    version: Version, meeting: _Meeting, out: Mapping[bytes, str]
) -> dict[str, str | int | float]:
    """What the trace says of a merge: whom, with which weight, and who was left out."""
    layers = len(version.manifest.layers)
    mean = [sum(shares) / layers for shares in meeting.shares]
    rows = [
        (v.manifest.walker.hex()[:NAME_DIGITS], v, weight)
        for v, weight in zip(meeting.versions, mean, strict=True)
        if v is not version
    ]
    own = next(w for v, w in zip(meeting.versions, mean, strict=True) if v is version)
    return {
        "with": ", ".join(
            f"{name} version {v.manifest.seq} (weight {weight:.2f})"
            for name, v, weight in rows
            if v.digest not in out
        ),
        "left_out": ", ".join(f"{name}: {out[v.digest]}" for name, v, _ in rows if v.digest in out),
        "own": round(own, 4),
    }
