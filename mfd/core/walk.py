"""Where a model goes next and which layers learn there: every peer can read the plan and decide.

Rules of this file: pure functions of plan, manifest and what is known of holders; no state.
Source: spec/walk.md; the order of blocks decides the bytes (spec/rationale.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from mfd.core.blocks import Work, cursor_of, why_no_blocks, work_of
from mfd.packet.limits import VISITED_MAX
from mfd.packet.manifest import Manifest, Progress
from mfd.packet.plan import Plan
from mfd.packet.task import Range

__all__ = [
    "CHOOSE_KEY",
    "POLICIES",
    "Arrive",
    "Known",
    "Measure",
    "Move",
    "Round",
    "SkipLap",
    "Step",
    "Train",
    "Wait",
    "after_round",
    "after_stop",
    "decide",
    "is_free",
    "policy_of",
    "ranges_of",
    "rests",
]

MARK_BYTES = 8  # of a peer id in `visited`
CHOOSE_KEY = 29
POLICIES = (  # a new one is a case in policy.rank and one in policy.reason
    "nearest",
    "labels",
    "samples",
    "capacity",
    "robin",
    "random",
    "uniform",
    "metropolis",
)


class Known(Protocol):
    """A holder that a route leads to; nearest first, the peer itself among them if it holds."""

    @property
    def holder(self) -> bytes:
        """Its peer id."""
        ...


@dataclass(frozen=True, slots=True)
class Train:
    """Learn here."""

    work: Work
    journey: tuple[float, float]

    @property
    def ranges(self) -> tuple[Range, ...]:
        """The layers that may change."""
        return self.work.ranges


@dataclass(frozen=True, slots=True)
class Move:
    """Hand over to the first of these that takes it."""

    targets: tuple[bytes, ...]
    why: str  # shown by `mfd trace`


@dataclass(frozen=True, slots=True)
class Measure:
    """Let a holder of a verification name measure this version."""

    targets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Round:
    """Federated averaging: all these holders train the same version, the owner merges."""

    targets: tuple[bytes, ...]
    ranges: tuple[Range, ...]
    journey: tuple[float, float]


@dataclass(frozen=True, slots=True)
class SkipLap:
    """The rest of this lap is out of reach: commit the beginning of the next one."""


@dataclass(frozen=True, slots=True)
class Arrive:
    """The journey is over and this is home."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing can be done now."""

    reason: str


Step = Train | Move | Measure | Round | SkipLap | Arrive | Wait


def policy_of(plan: Plan) -> str:
    """Return the policy of a plan; one that is not known here means the default of its mode."""
    chosen = plan.extra.get(CHOOSE_KEY)
    if isinstance(chosen, str) and chosen in POLICIES:
        return chosen
    return "uniform" if plan.mode == "gossip" else "nearest"


def is_free(plan: Plan) -> bool:
    """Say whether holders may come again before all were visited (W-40)."""
    return plan.mode == "gossip" or policy_of(plan) == "metropolis"


def decide(
    plan: Plan,
    manifest: Manifest,
    me: bytes,
    *,
    holders: Sequence[Known],
    verifiers: Sequence[Known],
    measured: bool,
    shunned: frozenset[bytes],
    hopeless: frozenset[bytes] = frozenset(),
    crowded: bool = False,
) -> Step:
    """Return the next step of the walker that `me` owns in version `manifest`.

    `measured` says that this version has been measured; `shunned` are holders that failed lately.
    `hopeless` are those that failed so often that no lap waits for them.
    `crowded`: a sibling begins here, so this walker begins elsewhere if it can.
    """
    progress = manifest.progress
    if why := why_no_blocks(plan, len(manifest.layers)):
        return Wait(why)
    reachable = tuple(s.holder for s in holders if s.holder not in shunned)
    boundary = _at_boundary(plan, manifest, me)
    if boundary and plan.verify and not measured and verifiers:
        return Measure(tuple(s.holder for s in verifiers))
    if progress.lap >= plan.laps:
        return Arrive() if me == plan.home else Move((plan.home,), "the journey is over: home")
    if not progress.stops and len(reachable) < plan.min_holders:
        return Wait(f"{len(reachable)} of {plan.min_holders} holders of {_names(plan)} are known")
    if plan.mode == "fedavg":
        return _round(plan, manifest, me, reachable)
    if is_free(plan):
        return _free_stop(plan, manifest, me, reachable)
    if progress.visited:
        reachable = tuple(holder for holder in reachable if holder not in hopeless)
    return _stop(plan, manifest, me, reachable, elsewhere=boundary or crowded)


def _at_boundary(plan: Plan, manifest: Manifest, me: bytes) -> bool:
    """Whether the walker has ended a lap, here and now."""
    progress = manifest.progress
    if not progress.stops or manifest.trainer != me:
        return False
    if is_free(plan):
        return rests(manifest, me) and progress.stops % plan.min_holders == 0
    return not progress.visited


def rests(manifest: Manifest, me: bytes) -> bool:
    """Say whether a free walker has had its stop here."""
    return manifest.progress.visited == (me[:MARK_BYTES],)


def _free_stop(plan: Plan, manifest: Manifest, me: bytes, reachable: tuple[bytes, ...]) -> Step:
    progress = manifest.progress
    if not reachable:
        return Wait(f"no holder of {_names(plan)} is known")
    others = tuple(holder for holder in reachable if holder != me)
    if me in reachable and (not rests(manifest, me) or reachable[0] == me or not others):
        stops = plan.laps * plan.min_holders
        journey = (progress.stops / stops, (progress.stops + 1) / stops)
        work = work_of(plan, progress, len(manifest.layers), manifest.trained)
        return Train(work, journey)
    return Move(others, f"one of {len(others)} others")


def _names(plan: Plan) -> str:
    return " or ".join(plan.names)


def _round(plan: Plan, manifest: Manifest, me: bytes, reachable: tuple[bytes, ...]) -> Step:
    if me != plan.home:
        return Move((plan.home,), "federated averaging is run from home")
    if not reachable:
        return Wait(f"no holder of {_names(plan)} is known")
    lap = manifest.progress.lap
    journey = (lap / plan.laps, (lap + 1) / plan.laps)
    return Round(reachable, ranges_of(plan, manifest.progress, len(manifest.layers)), journey)


def _stop(
    plan: Plan, manifest: Manifest, me: bytes, reachable: tuple[bytes, ...], *, elsewhere: bool
) -> Step:
    progress = manifest.progress
    unvisited = tuple(h for h in reachable if h[:MARK_BYTES] not in progress.visited)
    if not unvisited:
        return SkipLap() if progress.visited else Wait(f"no holder of {_names(plan)} is known")
    # The last peer of a lap is not the first of the next one: it would see its own data twice.
    others = tuple(h for h in unvisited if h != me)
    if me in unvisited and not (elsewhere and others):
        work = work_of(plan, progress, len(manifest.layers), manifest.trained)
        return Train(work, _journey(plan, progress, len(unvisited)))
    return Move(others, f"nearest of {len(others)} unvisited in lap {progress.lap + 1}")


def ranges_of(plan: Plan, progress: Progress, layers: int) -> tuple[Range, ...]:
    """Return the layers that may learn at this stop, in ascending order."""
    return work_of(plan, progress, layers).ranges


def _journey(plan: Plan, progress: Progress, unvisited: int) -> tuple[float, float]:
    """Return the part of the whole journey that the next stop covers, for the learning rate."""
    seen = len(progress.visited)
    stops = max(progress.holders, seen + unvisited, 1)
    start = (progress.lap + min(seen / stops, 1)) / plan.laps
    return start, (progress.lap + min((seen + 1) / stops, 1)) / plan.laps


def after_stop(
    plan: Plan,
    progress: Progress,
    me: bytes,
    *,
    steps: int | None,
    holders: Sequence[Known],
    layers: int,
    trained: Sequence[Range] = (),
) -> Progress:
    """Return the progress to be signed after training here: the next lap where none is left.

    `steps` is None where the learner failed: the visit counts, a stop it was not. `trained` are
    the layers that learned.
    """
    if is_free(plan):
        done = _after_free_stop(plan, progress, me, steps=steps)
        cursor = cursor_of(plan, done, layers, came=progress, trained=trained)
        return replace(done, cursor=cursor)
    visited = (*progress.visited, me[:MARK_BYTES])
    left = [s for s in holders if s.holder[:MARK_BYTES] not in visited]
    # holders that were there before may only be out of reach for a moment: decide() waits for them
    missed = len(visited) < (progress.holders or plan.min_holders)
    full = len(visited) >= VISITED_MAX
    done = replace(progress, visited=visited)
    if steps is not None:
        done = replace(done, stops=progress.stops + 1, step=progress.step + steps)
    goes_on = (left or missed) and not full
    done = done if goes_on else _next_lap(done)
    cursor = cursor_of(plan, done, layers, came=progress, trained=trained)
    return replace(done, cursor=cursor)


def _after_free_stop(plan: Plan, progress: Progress, me: bytes, *, steps: int | None) -> Progress:
    """Every visit counts, also one whose learner has failed: else it would be tried for ever."""
    stops = progress.stops + 1
    lap, ends = progress.lap, stops % plan.min_holders == 0
    return replace(
        progress,
        visited=(me[:MARK_BYTES],),
        stops=stops,
        step=progress.step + (steps or 0),
        lap=lap + 1 if ends else lap,
        holders=plan.min_holders,
    )


def after_round(plan: Plan, progress: Progress, *, clients: int, steps: int) -> Progress:
    """Return the progress to be signed after a federated round, or a lap cut short."""
    stops, step = progress.stops + clients, progress.step + steps
    return _next_lap(replace(progress, stops=stops, step=step))


def _next_lap(progress: Progress) -> Progress:
    return replace(
        progress,
        lap=progress.lap + 1,
        holders=len(progress.visited) or progress.holders,
        visited=(),
    )
