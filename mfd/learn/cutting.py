"""Cut a version of a model down for a peer that takes only parts, and train such a part there.

Rules of this file: of the full model one layer at a time is in memory. What comes from a stranger
is a scale and layers; whether they fit each other shows when they are loaded.
Source: spec/custody.md, C-38; spec/packet.md, section "Scale and merge".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from mfd.learn.errors import LearnError
from mfd.learn.scaled import Part
from mfd.learn.slices import own, sliced
from mfd.packet.extent import FULL, Scale
from mfd.packet.objects import Buffer, LayerObject, pack_layer
from mfd.packet.plan import Plan
from mfd.packet.scales import SCALES_KEY, claims_of, scales_of
from mfd.packet.task import LayerRef, LearnResult, LearnTask

__all__ = ["cut", "plan_of"]

Read = Callable[[bytes], Buffer]
Write = Callable[[LayerObject], None]


def plan_of(task: LearnTask, plan: Plan) -> Plan:
    """The plan with the recipe of what a task brings: the full model, or a scale of it.

    Raises: LearnError, one sentence, where the plan's model cannot be cut so.
    """
    if task.scale == FULL:
        return plan
    extra = {key: value for key, value in plan.extra.items() if key != SCALES_KEY}
    return replace(plan, recipe=Part.of(plan.recipe, task.scale).recipe, extra=extra)


def cut(task: LearnTask, plan: Plan, read: Read, write: Write) -> LearnResult:
    """Write the layers of the first of the plan's scales that takes at most `most_bytes`.

    It has at least one of the layers in `trained`. The result names the layers that are others than
    the full model's, and as `trained` all that the scale keeps, both as the full model counts them.
    Raises: LearnError, one sentence, where there is no such scale.
    """
    names = [ref.name for ref in task.layers]
    reason = "the plan has no scales"
    for by in scales_of(plan):
        if by == FULL:
            continue
        try:
            part = Part.of(plan.recipe, by)
            part.ranges(names, task.trained)
            kept = set(part.kept(names))
            layers = [ref for ref in task.layers if ref.name in kept]
            taken = sum(_made(ref, part, Scale(by.width), read).raw_bytes for ref in layers)
        except (LearnError, ValueError) as exc:
            reason = str(exc)
            continue
        if taken > task.most_bytes:
            reason = f"the smallest scale that was tried takes {taken} bytes"
            continue
        return _written(layers, part, read, write)
    raise LearnError(f"no scale of the plan takes at most {task.most_bytes} bytes: {reason}")


def _made(ref: LayerRef, part: Part, by: Scale, read: Read) -> LayerObject:
    return pack_layer(sliced({ref.name: own(read(ref.digest))}, by, part.axes)[ref.name])


def _written(layers: list[LayerRef], part: Part, read: Read, write: Write) -> LearnResult:
    changed = []
    for ref in layers:
        made = _made(ref, part, Scale(part.by.width, 0, part.by.bits), read)
        if made.digest != ref.digest:
            write(made)
            changed.append(LayerRef(ref.index, ref.name, made.digest, made.raw_bytes))
    ranges = tuple((ref.index, ref.index + 1) for ref in layers)
    return LearnResult(tuple(changed), claims_of(part.by), ranges)
