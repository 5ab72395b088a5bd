"""A `state_dict` as tensors and back; what shares memory is written once.

Rules of this file: torch is used only where the caller has imported it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mfd.packet.given import check_map
from mfd.packet.tensors import Tensor, named_tensor

__all__ = ["State", "from_state_dict", "to_state_dict"]


@dataclass(frozen=True, slots=True)
class State:
    """The tensors of a model, each once, and the names that stand for another's tensor.

    A safetensors file keeps the aliases as its metadata.
    """

    tensors: dict[str, Tensor]
    aliases: dict[str, str] = field(default_factory=dict)  # name -> name in `tensors`


def from_state_dict(state: Mapping[str, Any]) -> State:
    """Borrow the tensors of a `state_dict` (torch tensors or numpy arrays).

    Tensors that are the same memory in the same form belong to the first name; other names become
    aliases. Those that overlap otherwise are written each for itself.
    Raises: TypeError for what is no tensor or cannot travel.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first: dict[tuple[object, ...], str] = {}
    check_map(state, "a state_dict", "tensor names to tensors")
    for name, value in state.items():
        place = _place(name, value)
        if place is not None and place in first:
            aliases[name] = first[place]
        else:
            tensors[name] = named_tensor(name, value)
            if place is not None:
                first[place] = name
    return State(tensors, aliases)


def _place(name: str, value: object) -> tuple[object, ...] | None:
    """Where and how a tensor lies in memory; None where it takes none."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if value.device.type == "meta":
            raise TypeError(f"{name!r} is a meta tensor: it has a shape but no values")
        if value.numel() == 0 or value.layout is not torch.strided:
            return None
        form = (value.dtype, tuple(value.shape), value.stride(), value.is_conj(), value.is_neg())
        return (str(value.device), value.data_ptr(), *form)
    if isinstance(value, Tensor):
        value = value.array()
    if not isinstance(value, np.ndarray):
        raise TypeError(f"{name!r} is a {type(value).__name__}, not a tensor: only tensors travel")
    if value.size == 0:
        return None
    address, _ = value.__array_interface__["data"]
    return (address, value.dtype, value.shape, value.strides)


def to_state_dict(state: State | Mapping[str, Tensor]) -> dict[str, Any]:
    """Return torch tensors by name, aliases among them, ready for `load_state_dict`.

    WARNING: they view memory that may be read-only; read them, or `clone` them.
    Raises: RuntimeError as Tensor.torch; KeyError for an alias of a tensor that is not there.
    """
    if not isinstance(state, State):
        check_map(state, "a state", "tensor names to Tensors")
    found = state if isinstance(state, State) else State(dict(state))
    loaded = {name: tensor.torch() for name, tensor in found.tensors.items()}
    return loaded | {name: loaded[kept] for name, kept in found.aliases.items()}
