"""Which layers learn at a stop: the body of a model, cut into blocks, and the order of the blocks.

Rules of this file: pure functions of plan and progress. Where blocks have a fixed size, the block
follows from lap and stops; where each peer takes as many layers as it can, it begins at the cursor.
Source: spec/walk.md, W-05, W-06, W-26, W-27, W-35.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mfd.packet.manifest import Progress
from mfd.packet.plan import Plan
from mfd.packet.task import Range

__all__ = [
    "BASE_KEY",
    "Work",
    "base_of",
    "cursor_of",
    "joined",
    "lies_within",
    "why_no_blocks",
    "work_of",
]

BASE_KEY = 39  # plan field: so many of the first layers never learn (W-35)


@dataclass(frozen=True, slots=True)
class Work:
    """What a learner is to do at one stop; the fields are those of a task."""

    ranges: tuple[Range, ...]  # layers that may change, ascending
    body: Range | None = None  # taken by blocks; what lies outside trains with each of them
    block: int = 0  # layers of a block; 0: as many as memory allows
    sweep: bool = False  # all blocks one after the other


def why_no_blocks(plan: Plan, layers: int) -> str:
    """Say why this plan does not fit a model of so many layers; empty where it does."""
    if plan.body is None or plan.body[1] <= layers:
        return ""
    low, high = plan.body
    return f"the plan names layers {low}:{high}, and the model has {layers}: send it anew"


def work_of(plan: Plan, progress: Progress, layers: int, before: Sequence[Range] = ()) -> Work:
    """Return what is to be done at this stop of a model of `layers` layers.

    `before` is what the stop before this one has trained, as its version says.
    """
    base = base_of(plan, layers)
    every = ((base, layers),)
    free = plan.layers_per_stop == 0
    if plan.mode == "fedavg":
        return Work(every)
    if plan.mode != "snake" or progress.lap < plan.full_laps:
        return Work(every, every[0], sweep=True) if free else Work(every)
    low, high = _body(plan, layers)
    if plan.order == "sweep":
        return Work(_with_ends(plan, (low, high), layers), (low, high), plan.layers_per_stop, True)
    if free:
        block = _from_cursor(plan, progress, (low, high), before)
        return Work(_with_ends(plan, block, layers), block)
    block = _block(plan, progress, (low, high))
    return Work(_with_ends(plan, block, layers))


def cursor_of(
    plan: Plan,
    progress: Progress,
    layers: int,
    *,
    came: Progress | None = None,
    trained: Sequence[Range] = (),
) -> int:
    """Return the first layer of the block that is next after `progress`.

    `came` is the progress before that stop, `trained` what was trained there.
    """
    if plan.mode != "snake" or progress.lap < plan.full_laps or why_no_blocks(plan, layers):
        return 0
    low, high = _body(plan, layers)
    if plan.order == "sweep":
        return low
    if plan.layers_per_stop:
        return _block(plan, progress, (low, high))[0]
    if came is None or came.lap < plan.full_laps:
        return low
    at = came.cursor if low <= came.cursor < high else low
    moves_on = progress.lap != came.lap if plan.order == "lap" else bool(trained)
    if not moves_on:
        return at
    end = _end(trained, at)
    if end is None:  # nobody says how far: a lap must get on
        end = at + 1
    return end if end < high else low


def lies_within(inner: Sequence[Range], outer: Sequence[Range]) -> bool:
    """Say whether all layers of `inner` are among those of `outer`."""
    allowed = {i for low, high in outer for i in range(low, high)}
    return all(
        0 <= low < high <= max(allowed, default=-1) + 1 and allowed.issuperset(range(low, high))
        for low, high in inner
    )


def joined(ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Sort ranges and join those that touch or overlap."""
    out: list[Range] = []
    for low, high in sorted(ranges):
        if out and low <= out[-1][1]:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return tuple(out)


def _body(plan: Plan, layers: int) -> Range:
    """What is cut into blocks: never empty, even where head and first leave nothing."""
    base = base_of(plan, layers)
    low, high = plan.body or (base, layers)
    high = max(min(high, layers), base + 1)
    low = min(max(low, base), high - 1)
    if plan.head and high == layers and high - low > 1:
        high -= 1
    if plan.first and low == base and high - low > 1:
        low += 1
    return low, high


def base_of(plan: Plan, layers: int) -> int:
    """How many of the first layers never learn; a number that leaves none to learn is none."""
    base = plan.extra.get(BASE_KEY)
    return base if type(base) is int and 0 < base < layers else 0


def _with_ends(plan: Plan, block: Range, layers: int) -> tuple[Range, ...]:
    base = base_of(plan, layers)
    ends = [(base, base + 1)] * plan.first + [(layers - 1, layers)] * plan.head
    return joined([block, *ends])


def _block(plan: Plan, progress: Progress, body: Range) -> Range:
    low, high = body
    per_stop = min(plan.layers_per_stop, high - low)
    blocks = -(-(high - low) // per_stop)
    turn = progress.stops if plan.order == "stop" else progress.lap - plan.full_laps
    turn = max(turn, 0)
    if plan.order == "boustrophedon" and blocks > 1:
        turn %= 2 * blocks - 2
        turn = min(turn, 2 * blocks - 2 - turn)
    start = low + (turn % blocks) * per_stop
    return start, min(start + per_stop, high)


def _from_cursor(plan: Plan, progress: Progress, body: Range, before: Sequence[Range]) -> Range:
    low, high = body
    start = progress.cursor if low <= progress.cursor < high else low
    if plan.order == "lap" and progress.visited:
        end = _end(before, start)
        high = high if end is None else min(high, end)
    return start, high


def _end(trained: Sequence[Range], start: int) -> int | None:
    return next((high for low, high in trained if low <= start < high), None)
