"""Scaled versions of a walker owned here, sent as errands to holders that take only parts.

    owner                                            other
    OFFER or ERRAND ------------------------------->      larger than it takes
    <------------------------------- REFUSE PARTS(bytes)
    cuts the first scale of the plan that is small enough
    ERRAND(scaled version) ------------------------>      learns, as with every errand
    <---------------------------- RESULT(scaled version)

Rules of this file: a scaled version is never the walker's own; until the owner has merged and
committed what came back, nothing has happened.
Source: spec/custody.md, C-37, C-38; spec/walk.md, W-28, W-29.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial

from mfd.core.context import Context
from mfd.core.custody import Version, Walker
from mfd.core.errands import Errand, Errands
from mfd.core.walkers import Walkers
from mfd.packet.extent import FULL
from mfd.packet.manifest import Manifest, sign_manifest
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.scales import scale_told, scales_of
from mfd.packet.task import LayerRef, LearnResult, LearnTask, Range, Sibling

__all__ = ["Parts", "Wish", "sibling_of", "trained_by"]

WEIGHT_MIN = 1e-9


@dataclass(frozen=True, slots=True)
class Wish:
    """What an owner wants of a holder that takes only parts."""

    walker: Walker
    version: Version
    peer: bytes
    most_bytes: int  # of the part's layers together
    ranges: tuple[Range, ...]  # layers to be trained, as the full model counts them
    journey: tuple[float, float]
    then: Callable[[Errand], None]
    failed: Callable[[str], None]


class Parts:
    """Cuts versions owned here and sends them out."""

    def __init__(self, ctx: Context, walkers: Walkers, errands: Errands) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._errands = errands

    def send(self, wish: Wish) -> None:
        """Let the holder train a part: what comes back, or why nothing does, is told once."""
        plan, manifest = wish.walker.plan, wish.version.manifest
        if plan.mode == "distill" or not scales_of(plan) or manifest.scale != FULL:
            why = "a walker that shares has none" if plan.mode == "distill" else "the plan has none"
            wish.failed(f"it takes only parts, of at most {wish.most_bytes} bytes, and {why}")
            return
        task = LearnTask(
            kind="cut",
            plan=encode_plan(plan),
            layers=manifest.layers,
            trained=wish.ranges,
            most_bytes=wish.most_bytes,
        )
        self._ctx.learn(task, partial(self._cut, wish), wish.failed)

    def _cut(self, wish: Wish, result: LearnResult) -> None:
        try:
            part, ranges = self._version(wish, result)
        except ValueError as error:
            wish.failed(f"the part cannot be sent: {error}")
            return
        wish.walker.parts[wish.peer] = part
        digests = tuple(ref.digest for ref in result.layers)
        self._walkers.save(wish.walker, objects=digests, then=partial(self._go, wish, part, ranges))

    def _version(self, wish: Wish, result: LearnResult) -> tuple[Version, tuple[Range, ...]]:
        """The scaled version, and what of it is to be trained. Raises: ValueError."""
        before = wish.version.manifest
        by = scale_told(wish.walker.plan, result.claims)
        changed = {ref.index: ref for ref in result.layers}
        kept = [i for i in _indices(result.trained) if i < len(before.layers)]
        if by is None or not kept:
            raise ValueError("the learner has not told what it has cut")
        layers = [changed.get(i, before.layers[i]) for i in kept]
        wanted = set(_indices(wish.ranges))
        ranges = _ranges(place for place, i in enumerate(kept) if i in wanted)
        manifest = replace(
            before,
            layers=tuple(replace(ref, index=place) for place, ref in enumerate(layers)),
            scale=by,
            seq=before.seq + 1,
            parents=(wish.version.digest,),
            trained=(),
            trainer=self._ctx.me,
            claims={},
        )
        record, signature = sign_manifest(manifest, self._ctx.signer)
        return Version(record, signature, manifest), ranges

    def _go(self, wish: Wish, part: Version, ranges: tuple[Range, ...]) -> None:
        task = ("train", ranges, wish.journey)
        self._errands.send(wish.walker, wish.peer, task, wish.then, wish.failed, version=part)


def sibling_of(errand: Errand, full: Manifest, plan: Plan) -> Sibling:
    """What an errand brought back, to be merged into the full model.

    It counts in those coordinates alone that its scale keeps: the scale of what came back, or the
    one that its claims tell.
    """
    assert errand.version is not None
    made = errand.version.manifest
    weight = max(errand.claims.get("samples", 1.0), WEIGHT_MIN)
    if made.scale == FULL:
        return Sibling(made.layers, weight, scale=scale_told(plan, errand.claims) or FULL)
    places = {ref.name: ref.index for ref in full.layers}
    trained = {places[made.layers[i].name] for i in _indices(made.trained)}
    shares = tuple(weight if ref.index in trained else 0.0 for ref in full.layers)
    layers: list[LayerRef] = [replace(ref, index=places[ref.name]) for ref in made.layers]
    return Sibling(tuple(layers), weight, shares, made.scale, cut=True)


def trained_by(version: Version, full: Manifest) -> tuple[Range, ...]:
    """The layers that made a scaled version, as the full model counts them."""
    places = {ref.name: ref.index for ref in full.layers}
    made = version.manifest
    return _ranges(sorted(places[made.layers[i].name] for i in _indices(made.trained)))


def _indices(ranges: Iterable[Range]) -> list[int]:
    return [i for low, high in ranges for i in range(low, high)]


def _ranges(places: Iterable[int]) -> tuple[Range, ...]:
    """Ascending numbers as ranges."""
    found: list[Range] = []
    for place in places:
        if found and found[-1][1] == place:
            found[-1] = (found[-1][0], place + 1)
        else:
            found.append((place, place + 1))
    return tuple(found)
