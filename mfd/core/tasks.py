"""What an errand asks for and brings back, and what a learner's result makes of a manifest.

Rules of this file: pure functions of values; what others claim is bounded here.
Source: spec/custody.md, section "Errands".
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite
from typing import Any

from mfd.core.blocks import Work, lies_within
from mfd.core.config import Config
from mfd.core.custody import Identity, Version
from mfd.core.names import beneath
from mfd.packet.errors import Fault, PacketError
from mfd.packet.extent import FULL
from mfd.packet.limits import CLAIM_NAME_BYTES_MAX, CLAIMS_MAX, RANGES_MAX
from mfd.packet.manifest import Manifest, sign_manifest
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.scales import scales_of
from mfd.packet.signing import Signer
from mfd.packet.task import LearnResult, LearnTask, Range

__all__ = [
    "Task",
    "child_of",
    "errand_task",
    "has_scale",
    "is_too_large",
    "read_claims",
    "read_task",
    "relayer",
    "round_told",
    "seed_of",
    "shown",
    "stop_told",
    "training_task",
    "why_no_child",
]

Task = tuple[str, tuple[Range, ...], tuple[float, float]]  # kind, layers, part of the journey
COUNTS = ("samples", "steps", "seconds", "peak_bytes")
COUNT_MAX = 2.0**40


def relayer(manifest: Manifest, result: LearnResult) -> Manifest:
    """Return the manifest with the layers that a learner changed."""
    changed = {ref.index: ref for ref in result.layers}
    return replace(manifest, layers=tuple(changed.get(r.index, r) for r in manifest.layers))


def seed_of(seed: int, seq: int, peer: bytes) -> int:
    """Seed of one stop: differs from stop to stop and peer to peer, the same in every run."""
    return (seed * 1_000_003 + seq * 8_191 + int.from_bytes(peer[:4], "little")) % (1 << 31)


def shown(ranges: Sequence[Range]) -> str:
    """Layer ranges as people read them."""
    return "+".join(f"{low}:{high}" for low, high in ranges)


def training_task(
    plan: Plan, manifest: Manifest, name: str, work: Work, when: tuple[tuple[float, float], int]
) -> LearnTask:
    """Return the task of a stop on data `name`; `when` is the part of the journey, and the seed."""
    journey, seed = when
    return LearnTask(
        kind="train",
        plan=encode_plan(plan),
        layers=manifest.layers,
        name=name,
        trained=work.ranges,
        body=work.body,
        block=work.block,
        sweep=work.sweep,
        journey=journey,
        seed=seed,
    )


def errand_task(
    identity: Identity, version: Version, task: Task, holdings: Collection[str], me: bytes
) -> LearnTask | None:
    """The learner's job for an errand here, or None where the data is not held."""
    kind, ranges, journey = task
    plan, manifest = identity.plan, version.manifest
    measure = kind == "measure"
    wanted, but = (plan.verify, ()) if measure else (plan.names, plan.verify)
    names = beneath(wanted, holdings, but=but)
    if not names:
        return None
    return LearnTask(
        kind="measure" if measure else "train",
        plan=encode_plan(plan),
        layers=manifest.layers,
        name=names[manifest.progress.lap % len(names)],
        trained=ranges,
        journey=journey,
        seed=seed_of(plan.seed, manifest.seq, me),
        scale=manifest.scale,
    )


def child_of(version: Version, learn: LearnTask, result: LearnResult, signer: Signer) -> Version:
    """The version that training on an errand made of another; it names what was trained (C-27).

    Raises: ValueError, one sentence, where that is not what the errand gave, or cannot be signed.
    """
    trained = result.trained or learn.trained
    changed = tuple((ref.index, ref.index + 1) for ref in result.layers)
    if not (lies_within(trained, learn.trained) and lies_within(changed, trained)):
        raise ValueError("the learner trained layers that it was not given")
    child = replace(
        relayer(version.manifest, result),
        seq=version.manifest.seq + 1,
        parents=(version.digest,),
        trained=trained,
        trainer=signer.public_key,
        claims=dict(result.claims),
    )
    record, signature = sign_manifest(child, signer)
    return Version(record, signature, child)


def is_too_large(version: Version, config: Config) -> bool:
    """Whether a model is taken here in parts alone (C-37)."""
    return 0 < config.whole_bytes_max < sum(version.objects.values())


def has_scale(plan: Plan, version: Version, task: Task) -> bool:
    """Whether an errand is on the full model, or trains a scale that the plan allows (C-38)."""
    scale = version.manifest.scale
    return scale == FULL or (task[0] == "train" and scale in scales_of(plan))


def stop_told(
    place: tuple[int, int], ranges: Sequence[Range], came_bytes: int, claims: Mapping[str, float]
) -> dict[str, str | int | float]:
    """What is told of a stop in lap `place[0]` of `place[1]`."""
    lap, laps = place
    numbers = {k: v for k, v in claims.items() if isinstance(v, int | float)}
    return {**numbers, "lap": lap, "laps": laps, "layers": shown(ranges), "came_bytes": came_bytes}


def round_told(
    lap: int,
    laps: int,
    ranges: Sequence[Range],
    good: Sequence[tuple[Mapping[str, float], int]],
) -> dict[str, str | int | float]:
    """What is told of a federated round: claims and carried bytes of each holder, summed up.

    `ranges` are the layers that were to learn.
    """
    claims = [each for each, _ in good]
    weight = sum(c.get("samples", 0) for c in claims) or 1
    told: dict[str, str | int | float] = {
        "lap": lap,
        "laps": laps,
        "layers": shown(ranges),
        "came_bytes": sum(carried for _, carried in good),
        "samples": sum(c.get("samples", 0) for c in claims),
        "steps": sum(c.get("steps", 0) for c in claims),
        "clients": len(claims),
        "seconds": max(c.get("seconds", 0) for c in claims),
        "peak_bytes": max(c.get("peak_bytes", 0) for c in claims),
    }
    if parts := sum("width" in c for c in claims):
        told["parts"] = parts  # clients that trained a part of the model
    for key in ("loss_before", "loss"):
        told[key] = sum(c.get(key, 0) * c.get("samples", 0) for c in claims) / weight
    return told


def why_no_child(
    manifest: Manifest, parent: Version, sender: bytes, ranges: Sequence[Range]
) -> str | None:
    """Say why a manifest is not what `sender` can have made of `parent`, or None.

    `ranges` are the layers that it was given to train.
    """
    before = parent.manifest
    if manifest.walker != before.walker or manifest.plan != before.plan:
        return "the result belongs to another walker"
    if manifest.trainer != sender or manifest.parents != (parent.digest,):
        return "the result does not descend from the version sent"
    if manifest.scale != before.scale:
        return "the result is of another scale than the version sent"
    shape = [(r.index, r.name, r.raw_bytes) for r in manifest.layers]
    if shape != [(r.index, r.name, r.raw_bytes) for r in before.layers]:
        return "the result has other layers than the version sent"
    if not lies_within(manifest.trained, ranges):
        return "the result has trained layers that it was not given"
    pairs = zip(manifest.layers, before.layers, strict=True)
    changed = [(r.index, r.index + 1) for r, b in pairs if r.digest != b.digest]
    if not lies_within(changed, manifest.trained):
        return "the result has changed layers that it does not name as trained"
    return None


def read_task(task: list[Any], layers: int) -> Task:
    """Check the task of an ERRAND on a model of `layers` layers.

    Raises: PacketError.
    """
    match task:
        case ["measure" | "train" as kind, list() as rows, [float() as start, float() as stop]]:
            ranges = tuple(_read_range(row) for row in rows[: RANGES_MAX + 1])
            edges = (0, *(edge for low, high in ranges for edge in (low, high)), layers)
            ordered = all(a <= b for a, b in pairwise(edges)) and all(a < b for a, b in ranges)
            right_count = len(ranges) == 0 if kind == "measure" else 1 <= len(ranges) <= RANGES_MAX
            if ordered and right_count and 0 <= start <= stop <= 1:
                return kind, ranges, (start, stop)
    raise PacketError(Fault.FIELD, "task of an errand")


def _read_range(row: object) -> Range:
    match row:
        case [int() as low, int() as high] if type(low) is int and type(high) is int:
            return low, high
    raise PacketError(Fault.FIELD, "layer range of an errand")


def read_claims(claims: Mapping[str, Any]) -> dict[str, float]:
    """Numbers that somebody else claims: finite ones, by names that a report can show.

    Counts that are summed up are held within what a manifest can carry.
    """
    numbers = {
        name: float(value)
        for name, value in list(claims.items())[:CLAIMS_MAX]
        if len(name) <= CLAIM_NAME_BYTES_MAX and type(value) in (int, float) and isfinite(value)
    }
    for name in COUNTS:
        if name in numbers:
            numbers[name] = min(max(numbers[name], 0.0), COUNT_MAX)
    return numbers
