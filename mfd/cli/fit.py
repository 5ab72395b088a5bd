"""Refuse what could not learn anywhere, before anything is sent or started.

Rules of this file: torch is loaded by its functions alone; whether a model takes data is decided in
mfd.learn.beforehand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mfd.cli.errors import Misuse

if TYPE_CHECKING:
    from torch import nn

    from mfd.learn.holdings import Holding
    from mfd.learn.samples import Sample
    from mfd.packet.plan import Plan

__all__ = ["check_fit", "check_resident", "check_table", "head_width"]


def check_fit(
    plan: Plan, samples: Mapping[str, Sample], module: nn.Module | None = None, *, who: str = ""
) -> None:
    """Check a plan's model, task and scales against the data, as far as it is known here.

    `samples`: by what a user calls the data. `module`: the model, where it is none of the zoo.
    `who` begins the sentence. Raises: Misuse.
    """
    try:
        from mfd.learn.beforehand import check_plan
        from mfd.learn.errors import LearnError
    except ImportError as exc:
        raise Misuse(f"building models needs {exc.name}: pip install 'mfd[learn]'") from exc
    try:
        check_plan(plan, module, samples)
    except LearnError as exc:
        raise Misuse(f"{who}{exc}") from exc


def check_table(table: Mapping[str, Any], data: str, holding: Holding, *, who: str = "") -> None:
    """Check the fields of a plan against data that was loaded from `data`. Raises: Misuse."""
    from mfd.cli.plans import make_plan
    from mfd.cli.sending import build
    from mfd.learn.samples import Sample

    plan = make_plan(table, bytes(32))
    module = None if "zoo" in plan.recipe else build(plan.recipe)
    check_fit(plan, {data: Sample.of(holding)}, module, who=who)


def check_resident(recipe: Mapping[str, Any], data: str, holding: Holding) -> None:
    """Check the model that lives at holders. Raises: Misuse."""
    from mfd.learn.beforehand import check_model
    from mfd.learn.errors import LearnError
    from mfd.learn.samples import Sample

    try:
        check_model(recipe, Sample.of(holding), data)
    except LearnError as exc:
        raise Misuse(f"--resident: {exc}") from exc


def head_width(recipes: Sequence[Mapping[str, Any]]) -> int:
    """How many values the heads of models take, whose prototypes are shared. Raises: Misuse."""
    import torch

    from mfd.learn import zoo
    from mfd.learn.prototypes import head_of

    with torch.device("meta"):
        widths = sorted({head_of(zoo.build(recipe)).in_features for recipe in recipes})
    if len(widths) > 1:
        raise Misuse(
            "residents that share prototypes have heads of one width, these have "
            f"{' and '.join(map(str, widths))}: say hidden=N or width=N in --resident"
        )
    return widths[0]
