"""What an owner lets other peers do without giving the walker away: measuring, federated rounds.

Rules of this file: the walker stays where it is; whoever does not answer is left out, and a round
is merged from those that came back.
Source: spec/walk.md, W-08, W-11; spec/custody.md, section "Errands".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mfd.core.commits import Commits
from mfd.core.context import Context
from mfd.core.custody import Role, Version, Walker
from mfd.core.errands import Errand, Errands
from mfd.core.notices import Notices
from mfd.core.parking import Parking
from mfd.core.parts import Parts, Wish, sibling_of
from mfd.core.tasks import relayer, round_told
from mfd.core.walk import after_round, ranges_of
from mfd.core.walkers import Walkers
from mfd.packet.plan import encode_plan
from mfd.packet.task import LearnResult, LearnTask, Range

__all__ = ["Rounds"]


class Rounds:
    """Errands of the walkers owned here, and what becomes of their results."""

    def __init__(
        self,
        ctx: Context,
        walkers: Walkers,
        *,
        errands: Errands,
        parts: Parts,
        notices: Notices,
        parking: Parking,
        commits: Commits,
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._errands = errands
        self._parts = parts
        self._notices = notices
        self._parking = parking
        self._commits = commits

    def measure(self, walker: Walker, version: Version, targets: tuple[bytes, ...]) -> None:
        """Let the first of `targets` that can measure the version, then go on."""
        walker.busy = True
        walker.activity = f"being measured by {targets[0].hex()[:12]}"
        self._errands.send(
            walker,
            targets[0],
            ("measure", (), (0.0, 1.0)),
            partial(self._measured, walker, version),
            partial(self._not_measured, walker, version, targets[1:]),
        )

    def _measured(self, walker: Walker, version: Version, errand: Errand) -> None:
        if walker.version is not version:
            return
        walker.measured = version.digest
        told: dict[str, str | int | float] = {
            **errand.claims,
            "lap": version.manifest.progress.lap,
            "by": errand.peer.hex(),
            "carried_bytes": errand.carried_bytes,
        }
        self._notices.tell(walker, "measured", told)
        self._parking.again(walker, 0)

    def _not_measured(
        self, walker: Walker, version: Version, targets: tuple[bytes, ...], reason: str
    ) -> None:
        self._ctx.report("not measured", walker=walker.id.hex(), reason=reason)
        if walker.version is not version or walker.role is not Role.OWN:
            return
        if targets:
            self.measure(walker, version, targets)
            return
        walker.measured = version.digest  # the lap goes unmeasured rather than the walker stuck
        self._parking.again(walker, 0)

    def round(
        self,
        walker: Walker,
        version: Version,
        targets: tuple[bytes, ...],
        work: tuple[tuple[Range, ...], tuple[float, float]],
    ) -> None:
        """Let all `targets` train the same version, and merge what they send back."""
        walker.busy = True
        walker.activity = f"round {version.manifest.progress.lap + 1} at {len(targets)} holders"
        walker.parts.clear()
        waiting = set(targets)
        results: list[Errand] = []

        def back(peer: bytes, errand: Errand | None, reason: str) -> None:
            waiting.discard(peer)
            if errand is not None:
                results.append(errand)
            else:
                walker.shunned[peer] = self._ctx.now_us + self._ctx.config.failed_holder_us
                self._ctx.report("refused", holder=peer.hex(), reason=reason)
            if not waiting:
                self._merge(walker, version, results)

        for peer in targets:
            then, failed = partial(back, peer, reason=""), partial(back, peer, None)
            wish = partial(Wish, walker, version, peer, then=then, failed=failed)
            less = partial(self._less, wish, work)
            self._errands.send(walker, peer, ("train", *work), then, failed, less=less)

    def _less(
        self,
        wish: Callable[..., Wish],
        work: tuple[tuple[Range, ...], tuple[float, float]],
        most_bytes: int,
    ) -> None:
        """A client takes only parts: let it train one."""
        ranges, journey = work
        self._parts.send(wish(most_bytes=most_bytes, ranges=ranges, journey=journey))

    def _merge(self, walker: Walker, version: Version, results: list[Errand]) -> None:
        if walker.version is not version or walker.role is not Role.OWN:
            walker.parts.clear()
            return
        good = sorted((e for e in results if e.version is not None), key=lambda e: e.peer)
        if not good:
            self._parking.park(walker, "no holder has trained in this round")
            return
        versions = tuple(e.version for e in good if e.version is not None)
        siblings = tuple(sibling_of(e, version.manifest, walker.plan) for e in good)
        known = {d for v in (version, *walker.parts.values()) for d in v.objects}
        digests = {digest for v in versions for digest in v.objects} - known
        task = LearnTask(
            kind="merge",
            plan=encode_plan(walker.plan),
            layers=version.manifest.layers,
            siblings=siblings,
        )
        walker.siblings = versions
        learn = partial(
            self._ctx.learn,
            task,
            partial(self._merged, walker, version, good),
            partial(self._not_merged, walker, version),
        )
        self._walkers.save(walker, objects=tuple(sorted(digests)), then=learn)

    def _merged(
        self, walker: Walker, version: Version, good: list[Errand], result: LearnResult
    ) -> None:
        if walker.version is not version or walker.role is not Role.OWN:
            return
        walker.siblings = ()
        walker.parts.clear()
        before = version.manifest
        steps = int(sum(e.claims.get("steps", 0) for e in good))
        samples = sum(e.claims.get("samples", 0) for e in good)
        progress = after_round(walker.plan, before.progress, clients=len(good), steps=steps)
        ranges = ranges_of(walker.plan, before.progress, len(before.layers))
        heads = tuple(e.version.digest for e in good if e.version is not None)
        manifest = replace(
            relayer(before, result),
            parents=(version.digest, *heads)[:64],
            trained=ranges,
            progress=progress,
            claims={"samples": samples, "steps": steps},
        )
        told = [(e.claims, e.carried_bytes) for e in good]
        fields = round_told(before.progress.lap + 1, walker.plan.laps, ranges, told)
        digests = tuple(ref.digest for ref in result.layers)
        stopped = partial(self._stopped, walker, fields)
        self._commits.commit(walker, version, manifest, digests, stopped)

    def _stopped(self, walker: Walker, fields: dict[str, str | int | float]) -> None:
        self._notices.tell(walker, "stop", fields)
        walker.arrived_bytes = 0
        self._parking.again(walker, 0)

    def _not_merged(self, walker: Walker, version: Version, reason: str) -> None:
        walker.parts.clear()
        if walker.version is version and walker.role is Role.OWN:
            self._notices.tell(walker, "learning failed", {"reason": reason})
            self._parking.park(walker, "the round could not be merged")
