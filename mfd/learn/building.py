"""The module of a recipe, sized before its memory is taken: a task comes from a stranger."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mfd.learn import recipes, zoo
from mfd.learn.errors import LearnError
from mfd.learn.hf import adapt
from mfd.learn.memory import state_bytes
from mfd.packet.task import LayerRef

__all__ = ["build_for", "use_threads"]

Recipe = Mapping[str, Any]
STATE_SLACK = 1.1  # of a model's bytes over the sum of its layer objects, which hold tables too
UNSENT_BYTES_MAX = 256 << 20  # of buffers that do not travel, such as masks: their size is squared


def build_for(
    recipe: Recipe, layers: Sequence[LayerRef], own: Callable[[Recipe], nn.Module] | None
) -> nn.Module:
    """Build what a recipe names; `own` makes those that are not known here.

    Raises: LearnError, also where the model would be larger than the layers that came with it.
    """
    if not recipes.is_known(recipe):
        return _own(recipe, own)
    try:
        with torch.device("meta"):
            sketch = recipes.build(recipe)
        needed, unsent = state_bytes(sketch), _unsent_bytes(sketch)
        brought = sum(ref.raw_bytes for ref in layers)
        if needed > brought * STATE_SLACK:
            raise LearnError(f"the recipe needs {needed} bytes, the packet's layers have {brought}")
        if unsent > UNSENT_BYTES_MAX + brought:
            raise LearnError(
                f"the recipe needs {unsent} bytes for buffers that do not travel, more than "
                f"{UNSENT_BYTES_MAX} beside the layers' {brought}"
            )
        return recipes.build(recipe)
    except LearnError:
        raise
    except ValueError as exc:
        raise LearnError(str(exc)) from exc


def _unsent_bytes(module: nn.Module) -> int:
    """Bytes of buffers that are not part of the state."""
    state = {id(tensor) for tensor in module.state_dict(keep_vars=True).values()}
    return sum({id(b): b.nbytes for b in module.buffers() if id(b) not in state}.values())


def _own(recipe: Recipe, own: Callable[[Recipe], nn.Module] | None) -> nn.Module:
    if own is None:
        known = ", ".join(zoo.MODELS)
        raise LearnError(
            f"this peer cannot build the recipe {dict(recipe)!r}; it knows {known} and hf"
        )
    try:
        return adapt(own(recipe))
    except Exception as exc:  # a task boundary: the owner's code may raise anything
        raise LearnError(f"the recipe {dict(recipe)!r} cannot be built: {exc}") from exc


def use_threads(wanted: object, most: int) -> int:
    """Let torch use what a plan asks for, at most `most` (0: what torch has); return `most`.

    Torch is told only where the number changes.
    """
    most = most or torch.get_num_threads()
    count = min(wanted, most) if type(wanted) is int and wanted > 0 else most
    if count != torch.get_num_threads():
        torch.set_num_threads(count)
    return most
