"""Whether a lesson between a walker and the resident fits into a peer's memory, before it begins.

    proxy         both models train on the same batch and on as many public samples; beside them
                  lie the resident as it was and the walker as it came
    table         the resident alone trains; beside it lies the resident as it was

Rules of this file: it reckons as mfd.learn.memory does, and refuses; a lesson is not cut smaller.
Source: mfd.learn.sharing; spec/walk.md, W-22.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers
from mfd.learn.memory import need_of, shown, state_bytes
from mfd.learn.options import Options

__all__ = ["check_lesson", "check_lives"]

AT_ONCE = 2  # batches of a proxy's lesson: its own samples, and public ones


def check_lives(resident: nn.Module, budget: int) -> None:
    """Raise LearnError where not even two copies of a resident fit, of which one learns."""
    takes = 2 * state_bytes(resident)
    if budget and takes > budget:
        raise LearnError(
            f"the resident model takes {shown(takes)} with the copy that learns, and this peer "
            f"allows {shown(budget)}: raise its memory, or choose a smaller model"
        )


def check_lesson(
    walker: nn.Module | None,
    resident: nn.Module | None,
    holding: Holding,
    options: Options,
    budget: int,
) -> None:
    """Raise LearnError where a lesson does not fit into `budget` bytes; 0: no limit.

    `walker` is None where it is a table, which takes next to nothing.
    """
    if not budget:
        return
    batch = min(options.batch, len(holding.x))
    at_once = batch * (AT_ONCE if walker is not None and resident is not None else 1)
    parts: list[tuple[str, int]] = []
    for name, module in (("the walker", walker), ("the resident model", resident)):
        if module is None:
            continue
        own = options if name == "the walker" else replace(options, distill=0.0, anchor=0.0)
        need = need_of(module, holding, range(len(find_layers(module))), own)
        parts.append((name, need.total(at_once) + need.weights))
    takes = sum(size for _, size in parts)
    if takes > budget:
        told = " and ".join(f"{shown(size)} for {name}" for name, size in parts)
        raise LearnError(
            f"a lesson with batches of {batch} takes {told}, and this peer allows "
            f"{shown(budget)}: raise its memory, or give the plan smaller batches or models"
        )
