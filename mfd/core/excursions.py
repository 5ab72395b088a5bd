"""A stop at a holder that takes only parts: a part of the model goes there and comes back.

Rules of this file: the walker stays where it is and its custody with it; a holder that does not
bring anything back is passed over, and home is told why.
Source: spec/walk.md, W-28.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from mfd.core.ages import aged
from mfd.core.choice import Choice, going_home
from mfd.core.commits import Commits
from mfd.core.context import Context
from mfd.core.custody import Role, Version, Walker
from mfd.core.errands import Errand
from mfd.core.notices import Notices
from mfd.core.parking import Parking
from mfd.core.parts import Parts, Wish, sibling_of, trained_by
from mfd.core.tasks import relayer, stop_told
from mfd.core.walk import Train, after_stop, decide, is_free
from mfd.core.walkers import Walkers
from mfd.packet.limits import CLAIMS_MAX, RANGES_MAX
from mfd.packet.plan import encode_plan
from mfd.packet.scales import claims_of
from mfd.packet.task import LEFT_OUT, LearnResult, LearnTask

__all__ = ["Excursions"]

OWN_CLAIMS = 4  # of a stop elsewhere: width, depth, bits, and by whom


class Excursions:
    """Stops of walkers owned here at holders that take only parts."""

    def __init__(
        self,
        ctx: Context,
        walkers: Walkers,
        *,
        parts: Parts,
        choice: Choice,
        notices: Notices,
        parking: Parking,
        commits: Commits,
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._parts = parts
        self._choice = choice
        self._notices = notices
        self._parking = parking
        self._commits = commits

    def begin(self, walker: Walker, peer: bytes, most_bytes: int) -> None:
        """Let a holder that refused the whole walker train a part of it."""
        version = walker.version
        if version is None or walker.role is not Role.OWN:
            return  # fenced meanwhile
        walker.busy = True
        walker.activity = f"sending a part to {peer.hex()[:12]}"
        step = decide(  # what the holder itself would do, were it the owner
            walker.plan,
            version.manifest,
            peer,
            holders=self._choice.holders(walker),
            verifiers=(),
            measured=True,
            shunned=frozenset(),
        )
        if going_home(walker) or not isinstance(step, Train):
            self._passed(walker, version, peer, "it takes only parts, and there is nothing to do")
            return
        told = {"target": peer.hex(), "reason": f"it takes only parts, of {most_bytes} bytes"}
        self._notices.tell(walker, "part", told)
        self._parts.send(
            Wish(
                walker,
                version,
                peer,
                most_bytes,
                step.ranges,
                step.journey,
                then=partial(self._came, walker, version, step),
                failed=partial(self._passed, walker, version, peer),
            )
        )

    def _passed(self, walker: Walker, version: Version, peer: bytes, reason: str) -> None:
        """Nothing has come back: leave the holder alone for a while."""
        walker.siblings = ()
        walker.parts.clear()
        if walker.version is not version or walker.role is not Role.OWN:
            return
        walker.shunned[peer] = self._ctx.now_us + self._ctx.config.failed_holder_us
        walker.tries.failed(peer, self._ctx.now_us)
        told = {"target": peer.hex(), "reason": f"passed over: {reason}"}
        self._notices.tell(walker, "part", told)
        self._parking.again(walker, 0)

    def _came(self, walker: Walker, version: Version, step: Train, errand: Errand) -> None:
        """A part has come back: make it durable, then lay it into the full model."""
        made = errand.version
        if walker.version is not version or walker.role is not Role.OWN:
            walker.parts.clear()
            return
        if made is None:
            self._passed(walker, version, errand.peer, "it has trained nothing")
            return
        walker.siblings = (made,)
        walker.activity = f"merging what {errand.peer.hex()[:12]} has learned"
        task = LearnTask(
            kind="merge",
            plan=encode_plan(walker.plan),
            layers=version.manifest.layers,
            siblings=(sibling_of(errand, version.manifest, walker.plan),),
        )
        known = {*version.objects, *walker.parts[errand.peer].objects}
        learn = partial(
            self._ctx.learn,
            task,
            partial(self._merged, walker, version, step, errand),
            partial(self._passed, walker, version, errand.peer),
        )
        new = tuple(digest for digest in made.objects if digest not in known)
        self._walkers.save(walker, objects=new, then=learn)

    def _merged(
        self, walker: Walker, version: Version, step: Train, errand: Errand, result: LearnResult
    ) -> None:
        if (out := result.claims.get("out0")) is not None:
            reason = LEFT_OUT.get(int(out), "it was left out")
            self._passed(walker, version, errand.peer, f"what came back cannot be used: {reason}")
            return
        walker.siblings = ()
        walker.parts.clear()
        made = errand.version
        if walker.version is not version or walker.role is not Role.OWN or made is None:
            return  # fenced meanwhile
        before, plan = version.manifest, walker.plan
        trained = trained_by(made, before)
        trained = trained if len(trained) <= RANGES_MAX else step.ranges
        progress = after_stop(
            plan,
            before.progress,
            self._ctx.me if is_free(plan) else errand.peer,
            steps=int(errand.claims.get("steps", 0)),
            holders=self._choice.holders(walker),
            layers=len(before.layers),
            trained=trained,
        )
        claims = dict(list(errand.claims.items())[: CLAIMS_MAX - OWN_CLAIMS])
        claims |= claims_of(made.manifest.scale)
        samples = float(errand.claims.get("samples", 0.0))
        manifest = replace(
            aged(relayer(before, result), plan, trained, samples),
            parents=(version.digest, made.digest),
            trained=trained,
            progress=progress,
            claims={**claims, "by": errand.peer.hex()},
        )
        place = (before.progress.lap + 1, plan.laps)
        fields = stop_told(place, trained, walker.arrived_bytes + errand.carried_bytes, claims)
        stopped = partial(self._stopped, walker, {**fields, "by": errand.peer.hex()})
        digests = tuple(ref.digest for ref in result.layers)
        self._commits.commit(walker, version, manifest, digests, stopped)

    def _stopped(self, walker: Walker, fields: dict[str, str | int | float]) -> None:
        self._notices.tell(walker, "stop", fields)
        walker.arrived_bytes = 0
        self._parking.again(walker, 0)
