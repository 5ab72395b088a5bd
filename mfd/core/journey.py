"""The walker's own will: at each owner it reads the plan, takes the next step, commits, goes on.

Rules of this file: a version exists once its manifest is signed and stored; until then a crash
means that the stop happens again. One thing at a time for each walker (`busy`).
Source: spec/walk.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mfd.core.ages import aged, ages_of, walkers_of
from mfd.core.blocks import Work, lies_within
from mfd.core.choice import Choice
from mfd.core.commits import Commits
from mfd.core.context import Context
from mfd.core.custody import Role, Version, Walker
from mfd.core.errands import Errands
from mfd.core.excursions import Excursions
from mfd.core.handover import Handover
from mfd.core.lease import Leases
from mfd.core.meeting import Meetings
from mfd.core.notices import Notices
from mfd.core.parking import Parking
from mfd.core.parts import Parts
from mfd.core.rounds import Rounds
from mfd.core.tasks import relayer, seed_of, shown, stop_told, training_task
from mfd.core.walk import (
    Arrive,
    Measure,
    Move,
    Round,
    SkipLap,
    Train,
    Wait,
    after_round,
    after_stop,
    decide,
)
from mfd.core.walkers import Walkers
from mfd.packet.task import LearnResult, Range

__all__ = ["Journey"]

SKIP_RETRIES = 5  # park_retry_us each: how long a lap waits for holders that were there before


class Journey:
    """Moves the walkers that this peer owns."""

    def __init__(
        self,
        ctx: Context,
        walkers: Walkers,
        *,
        handover: Handover,
        errands: Errands,
        leases: Leases,
        notices: Notices,
        choice: Choice,
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._notices = notices
        self._parking = Parking(ctx, notices, self.advance)
        self._again, self._park = self._parking.again, self._parking.park
        self.appeared = self._parking.appeared
        self._handover = handover
        self._commits = Commits(ctx, walkers, self._parking)
        self._meetings = Meetings(
            ctx,
            walkers,
            choice=choice,
            notices=notices,
            parking=self._parking,
            commits=self._commits,
        )
        parts = Parts(ctx, walkers, errands)
        self._excursions = Excursions(
            ctx,
            walkers,
            parts=parts,
            choice=choice,
            notices=notices,
            parking=self._parking,
            commits=self._commits,
        )
        self._rounds = Rounds(
            ctx,
            walkers,
            errands=errands,
            parts=parts,
            notices=notices,
            parking=self._parking,
            commits=self._commits,
        )
        self._leases = leases
        self._choice = choice

    # what custody asks and tells

    def may_hold(self, walker: Walker) -> bool:
        """Holders of what the plan names, its home, and peers set up for it take custody."""
        home = walker.plan.home == self._ctx.me
        return home or self._ctx.config.custodian or bool(self._choice.data(walker))

    def owned(self, walker: Walker) -> None:
        """The walker is ours: go on."""
        self._choice.forget(walker)
        self._parking.goes_on(walker)
        self.advance(walker)

    def fenced(self, walker: Walker) -> None:
        """A newer epoch exists; a job under way ends by itself and is not committed."""

    def silent(self, walker: Walker, holder: bytes, rest_us: int) -> None:
        """Let the user know why nothing is heard."""
        seconds = rest_us / 1e6
        self._notices.tell(walker, "silent", {"holder": holder.hex(), "seconds": seconds})

    # the next step

    def advance(self, walker: Walker) -> None:
        """Take the next step of a walker owned here."""
        version = walker.version
        if walker.role is not Role.OWN or walker.busy or version is None:
            return
        now_us = self._ctx.now_us
        walker.shunned = {h: t for h, t in walker.shunned.items() if t > now_us}
        if self._meetings.begins(walker, version):
            return
        if self._choice.seeks(walker, version, partial(self._sought, walker, version)):
            walker.busy = True
            return
        step = decide(
            walker.plan,
            version.manifest,
            self._ctx.me,
            holders=self._choice.holders(walker),
            verifiers=self._choice.verifiers(walker),
            measured=walker.measured == version.digest,
            shunned=frozenset(walker.shunned),
            hopeless=walker.tries.hopeless(),
            crowded=self._ctx.me in self._choice.apart(walker),
        )
        if not isinstance(step, SkipLap):
            self._parking.patient(walker)
        if not isinstance(step, SkipLap | Move | Wait):
            self._parking.goes_on(walker)
        match step:
            case Train(work=work, journey=journey):
                self._train(walker, version, work, journey)
            case Move(targets=targets, why=why):
                self._move(walker, targets, why)
            case Measure(targets=targets):
                self._rounds.measure(walker, version, targets)
            case Round(targets=targets, ranges=ranges, journey=journey):
                self._rounds.round(walker, version, targets, (ranges, journey))
            case SkipLap():
                self._skip(walker, version)
            case Arrive():
                self._arrive(walker)
            case Wait(reason=reason):
                self._park(walker, reason)

    def _sought(self, walker: Walker, version: Version) -> None:
        if walker.version is version and walker.role is Role.OWN:
            self._again(walker, 0)

    def _move(self, walker: Walker, targets: tuple[bytes, ...], why: str) -> None:
        walker.busy = True
        why = self._choice.why(walker, targets[0], why)
        self._notices.tell(walker, "chosen", {"target": targets[0].hex(), "reason": why})
        nobody, less = partial(self._nobody, walker), partial(self._excursions.begin, walker)
        self._handover.offer(walker, targets, nobody, less)

    def _nobody(self, walker: Walker) -> None:
        if walker.role is not Role.OWN:
            return
        self._park(walker, "no peer that was asked takes it now")

    # learning here

    def _train(
        self,
        walker: Walker,
        version: Version,
        work: Work,
        journey: tuple[float, float],
    ) -> None:
        names = self._choice.data(walker)
        assert names, "decide() trains only where data is held"
        name = names[version.manifest.progress.lap % len(names)]
        walker.busy = True
        walker.activity = f"training layers {shown(work.ranges)} on {name}"
        seed = seed_of(_seed(walker), version.manifest.seq, self._ctx.me)
        task = training_task(walker.plan, version.manifest, name, work, (journey, seed))
        self._ctx.learn(
            task,
            partial(self._trained, walker, version, work.ranges),
            partial(self._not_trained, walker, version),
        )

    def _not_trained(self, walker: Walker, version: Version, reason: str) -> None:
        """Count the visit, tell home why, and go on: data that does not fit would fail again."""
        if walker.version is not version or walker.role is not Role.OWN:
            return
        self._notices.tell(walker, "learning failed", {"reason": reason})
        before = version.manifest
        progress = after_stop(
            walker.plan,
            before.progress,
            self._ctx.me,
            steps=None,
            holders=self._choice.holders(walker),
            layers=len(before.layers),
        )
        self._commits.progress(walker, version, progress)

    def _trained(
        self, walker: Walker, version: Version, ranges: tuple[Range, ...], result: LearnResult
    ) -> None:
        if walker.version is not version or walker.role is not Role.OWN:
            return  # fenced meanwhile
        trained = result.trained or ranges
        changed = tuple((ref.index, ref.index + 1) for ref in result.layers)
        if not (lies_within(trained, ranges) and lies_within(changed, trained)):
            self._not_trained(walker, version, "the learner trained layers that it was not given")
            return
        before = version.manifest
        progress = after_stop(
            walker.plan,
            before.progress,
            self._ctx.me,
            steps=int(result.claims.get("steps", 0)),
            holders=self._choice.holders(walker),
            layers=len(before.layers),
            trained=trained,
        )
        samples = float(result.claims.get("samples", 0.0))
        manifest = replace(
            aged(relayer(before, result), walker.plan, trained, samples),
            parents=(version.digest,),
            trained=trained,
            progress=progress,
            claims=dict(result.claims),
        )
        place = (before.progress.lap + 1, walker.plan.laps)
        fields = stop_told(place, trained, walker.arrived_bytes, result.claims)
        digests = tuple(ref.digest for ref in result.layers)
        stopped = partial(self._stopped, walker, fields)
        self._commits.commit(walker, version, manifest, digests, stopped)

    def _stopped(self, walker: Walker, fields: dict[str, str | int | float]) -> None:
        self._notices.tell(walker, "stop", fields)
        walker.arrived_bytes = 0
        self._again(walker, 0)

    def _skip(self, walker: Walker, version: Version) -> None:
        """Cut a lap short once its other holders have stayed away; routes may only be late."""
        progress = version.manifest.progress
        missed = len(progress.visited) < (progress.holders or walker.plan.min_holders)
        wait_us = SKIP_RETRIES * self._ctx.config.park_retry_us if missed or walker.shunned else 0
        if not self._parking.out_of_patience(walker, wait_us):
            self._park(walker, "the other holders of this lap are out of reach")
            return
        self._parking.patient(walker)
        walker.tries.clear()
        walker.busy = True
        seen, known = len(progress.visited), progress.holders or walker.plan.min_holders
        told = f"lap {progress.lap + 1} ends after {seen} of {known} holders: the others stay away"
        self._notices.tell(walker, "skipped", {"reason": told})
        progress = after_round(walker.plan, version.manifest.progress, clients=0, steps=0)
        self._commits.progress(walker, version, progress)

    # the end, and the story

    def _arrive(self, walker: Walker) -> None:
        walker.busy = True
        walker.role = Role.DONE
        walker.activity = "home"
        self._walkers.save(walker, then=partial(self._arrived, walker))

    def _arrived(self, walker: Walker) -> None:
        self._leases.done(walker)
        assert walker.version is not None
        manifest, came = walker.version.manifest, walker.arrived_bytes
        told = {"seq": manifest.seq, "came_bytes": came, "stops": manifest.progress.stops}
        if walkers_of(walker.plan) > 1:
            told["siblings"] = len(ages_of(manifest))  # whose learning is in it, its own too
        self._ctx.report("arrived", walker=walker.id.hex(), **told)


def _seed(walker: Walker) -> int:
    """The plan's seed; siblings learn each with its own."""
    seed = walker.plan.seed
    return seed + int.from_bytes(walker.id[:4], "little") if walkers_of(walker.plan) > 1 else seed
