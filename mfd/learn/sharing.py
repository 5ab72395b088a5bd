"""Unlike models teach each other: what a visit of a `distill` walker does at a peer.

    share = "proxy"        the walker is a small model; it and the resident learn from each other
    share = "logits"       the walker is what peers answer on a public set; residents follow it
    share = "prototypes"   the walker is the mean embedding of each label; residents follow it

Rules of this file: data and the resident's weights stay; what leaves is the walker's own layers.
A lesson is learned by a copy of the resident, which takes its place once all has gone well.
Source: spec/walk.md, W-22 and W-23; arXiv 2111.11343 (proxy), 1706.00384 (mutual learning),
1910.03581 (logits), 2105.00243 (prototypes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.measuring import measure
from mfd.learn.mutual import meet
from mfd.learn.options import Options, Sharing
from mfd.learn.prototypes import align
from mfd.learn.public import consult
from mfd.learn.pupils import Visit
from mfd.learn.resident import Resident
from mfd.learn.room import check_lesson
from mfd.learn.tables import Table
from mfd.packet.plan import Plan
from mfd.packet.task import LearnTask

__all__ = ["Visit", "measure_both", "visit", "visit_of"]

COUNT_MAX = 1e9  # samples or opinions behind a row of a table; NaN is above it


def visit_of(
    task: LearnTask,
    plan: Plan,
    holding: Holding,
    held: Callable[[str], Holding],
    watch: tuple[Callable[[float], None] | None, Callable[[], bool] | None],
) -> Visit:
    """What a walker finds at a peer that holds `held(name)`. Raises: LearnError, one sentence."""
    sharing, _ = Sharing.of(plan.learn, plan.mode)
    public = None
    if sharing.public:
        try:
            public = held(sharing.public)
        except LearnError as exc:
            raise LearnError(f"the plan shares on a public set: {exc}") from exc
    if public is not None and public.x.shape[1:] != holding.x.shape[1:]:
        raise LearnError(
            f"the public set {sharing.public!r} has samples of shape "
            f"{list(public.x.shape[1:])}, {task.name!r} of {list(holding.x.shape[1:])}"
        )
    return Visit(holding, public, plan.laps, task.journey, task.seed, *watch)


def visit(
    walker: nn.Module,
    resident: Resident | None,
    at: Visit,
    sharing: Sharing,
    options: Options,
    *,
    budget: int = 0,
) -> dict[str, float]:
    """Let the walker's module, changed in place, and the resident learn. Returns claims.

    A peer without resident only trains a proxy; a table needs one. `budget`: bytes that the lesson
    may take; 0: no limit.
    Raises: LearnError, one sentence; Cancelled. The resident is then as it was.
    """
    if sharing.share != "proxy" and resident is None:
        raise LearnError(f"{sharing.share} are shared by resident models, and this peer has none")
    at_home = None if resident is None else copy.deepcopy(resident.module)
    if at_home is not None:
        _check_takes(at_home, at.holding)
    proxy = walker if sharing.share == "proxy" else None
    check_lesson(proxy, at_home, at.holding, options, budget)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(at.seed)
        if sharing.share == "proxy":
            follow, teach = sharing.follow, sharing.teach
            claims = meet(walker, at_home, at, options, follow=follow, teach=teach)
        else:
            assert at_home is not None
            lesson = consult if sharing.share == "logits" else align
            claims = lesson(_table(walker, sharing), at_home, at, options, teach=sharing.teach)
    if resident is not None and at_home is not None:
        resident.adopt(at_home)
    return {**claims, "resident_lessons": float(resident.lessons if resident else 0)}


def measure_both(
    walker: nn.Module,
    resident: Resident | None,
    holding: Holding,
    sharing: Sharing,
    cancelled: Callable[[], bool] | None,
) -> dict[str, float]:
    """Measure the proxy, and the resident where there is one. Raises: LearnError; Cancelled."""
    claims: dict[str, float] = {}
    if sharing.share == "proxy":
        claims = measure(walker, holding, cancelled=cancelled)
    elif resident is None:
        raise LearnError(f"{sharing.share} answer nothing, and this peer has no resident model")
    if resident is not None:
        found = measure(resident.module, holding, cancelled=cancelled)
        claims = {**found, **claims} | {f"resident_{k}": found[k] for k in ("loss", "accuracy")}
    return claims


def _check_takes(resident: nn.Module, holding: Holding) -> None:
    try:
        measure(resident, holding, limit=1)
    except LearnError as exc:
        raise LearnError(f"the resident model does not fit this peer's data: {exc}") from exc


def _table(walker: nn.Module, sharing: Sharing) -> Table:
    found = next(walker.children(), None)
    if not isinstance(found, Table):
        raise LearnError(f"a plan that shares {sharing.share} has the recipe {sharing.share}")
    finite = bool(torch.isfinite(found.values).all())
    least, most = (float(x) for x in torch.aminmax(found.counts.detach()))
    if not (finite and least >= 0 and most <= COUNT_MAX):
        raise LearnError(
            f"the {sharing.share} that the walker brings are no opinion of anybody: a number in "
            "them is not finite, or a count out of range"
        )
    return found
