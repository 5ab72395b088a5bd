"""Smaller versions of a model: the first units of every layer, the first blocks, coarser weights.

Rules of this file: which axes may be cut is data that the model's author gives; what is kept is a
prefix, so that smaller versions nest. A scale of 1 leaves every bit as it is.
Source: spec/packet.md, section "Scale and merge"; arXiv 2010.01264 (ordered slices).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from mfd.packet.committing import Way, commit
from mfd.packet.given import check_map
from mfd.packet.limits import OBJECT_BYTES_MAX, RANK_MAX
from mfd.packet.manifest import Scale
from mfd.packet.packet import Packet
from mfd.packet.plan import decode_plan
from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES
from mfd.packet.tensors import Tensor, named_tensor

__all__ = ["Axes", "Cut", "Layers", "axes_in", "layers_of", "scale"]

Layers = Mapping[str, Mapping[str, Any]]  # layer name -> tensor name -> Tensor or array
WAYS = {0: None, 32: None, 16: Way.BF16, 8: Way.INT8, 4: Way.INT4}
ANY = "*"  # one component of a name


@dataclass(frozen=True, slots=True)
class Cut:
    """An axis of a tensor that may be cut: `parts` runs of `units`, each of equally many entries.

    axis of queries, keys, values:   | q 0 | q 1 | q 2 | k 0 | k 1 | k 2 | v 0 | v 1 | v 2 |
    3 parts of 3 units; 2 units kept: | q 0 | q 1 |     | k 0 | k 1 |     | v 0 | v 1 |     |
    """

    axis: int
    units: int  # channels, heads, hidden units, in order of importance
    parts: int = 1

    def __post_init__(self) -> None:
        numbers = (self.axis, self.units, self.parts)
        whole = all(type(number) is int for number in numbers)
        if not whole or not 0 <= self.axis < RANK_MAX or min(self.units, self.parts) < 1:
            raise ValueError(
                f"a cut is [axis, units, parts], whole numbers, axis below {RANK_MAX}, the "
                f"others from 1; not {list(numbers)}"
            )
        if self.units * self.parts > OBJECT_BYTES_MAX:
            raise ValueError(f"a cut of {self.units} x {self.parts} units is above the limit")

    def entries(self, extent: int) -> int:
        """Return how many entries of an axis one unit has. Raises: ValueError."""
        entries, rest = divmod(extent, self.units * self.parts)
        if rest:
            raise ValueError(
                f"axis {self.axis} has {extent} entries, not a multiple of {self.units} units x "
                f"{self.parts} parts"
            )
        return entries


@dataclass(frozen=True, slots=True)
class Axes:
    """What of a model may be cut: tensors by name, and the layers that are blocks, in order."""

    tensors: Mapping[str, tuple[Cut, ...]] = field(default_factory=dict)
    blocks: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: object) -> Axes:
        """Read the plain form that a recipe carries: lists, maps, texts and whole numbers.

        Raises: ValueError, one sentence, whatever the value.
        """
        match plain:
            case dict() if plain.keys() <= {"tensors", "blocks"}:
                tensors, blocks = plain.get("tensors", {}), plain.get("blocks", [])
            case _:
                raise ValueError('axes are {"tensors": {...}, "blocks": [...]}')
        if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
            raise ValueError('"tensors" of the axes is a map of names to lists of cuts')
        if not isinstance(blocks, list | tuple) or not all(isinstance(n, str) for n in blocks):
            raise ValueError('"blocks" of the axes is a list of layer names')
        if len(set(blocks)) != len(blocks):
            raise ValueError("the axes name a block twice")
        return cls({name: _cuts(name, value) for name, value in tensors.items()}, tuple(blocks))

    def plain(self) -> dict[str, Any]:
        """Return the form that a recipe carries."""
        rows = {
            name: [[cut.axis, cut.units, *([cut.parts] if cut.parts > 1 else [])] for cut in cuts]
            for name, cuts in self.tensors.items()
        }
        return {"tensors": rows, "blocks": list(self.blocks)}

    def cuts(self, name: str) -> tuple[Cut, ...]:
        """Return the cuts of a tensor. Raises: ValueError where two entries with * fit it."""
        if name in self.tensors:
            return self.tensors[name]
        found = [entry for entry in self.tensors if ANY in entry and _fits(entry, name)]
        if len(found) > 1:
            raise ValueError(f"axes {found[0]!r} and {found[1]!r} both fit tensor {name!r}")
        return self.tensors[found[0]] if found else ()


def _cuts(name: str, value: object) -> tuple[Cut, ...]:
    rows: list[Any] = list(value) if isinstance(value, list | tuple) else [None]
    if not all(isinstance(row, list | tuple) and len(row) in (2, 3) for row in rows):
        raise ValueError(f"axes of {name!r} are a list of [axis, units] or [axis, units, parts]")
    cuts = tuple(Cut(*row) for row in rows)
    if len({cut.axis for cut in cuts}) != len(cuts):
        raise ValueError(f"axes of {name!r} name an axis twice")
    return cuts


def _fits(entry: str, name: str) -> bool:
    wanted, parts = entry.split("."), name.split(".")
    return len(wanted) == len(parts) and all(
        one in (ANY, other) for one, other in zip(wanted, parts, strict=True)
    )


def layers_of(source: Packet | Layers) -> dict[str, dict[str, Tensor]]:
    """Return the tensors of a packet, or of layers given as arrays. Raises: as Tensor.of."""
    if isinstance(source, Packet):
        return source.tensors()
    check_map(source, "a model", "layer names to tensors, or a Packet")
    for layer, tensors in source.items():
        check_map(tensors, f"layer {layer!r}", "tensor names to arrays")
    return {
        layer: {name: named_tensor(name, value) for name, value in tensors.items()}
        for layer, tensors in source.items()
    }


def axes_in(packet: Packet) -> Axes:
    """Return the axes that the recipe of a packet's plan names.

    Raises: ValueError where the packet does not carry its plan or the plan names none; PacketError.
    """
    if packet.manifest.plan not in packet.objects:
        raise ValueError("give axes: this packet does not carry the plan that might name them")
    record = bytes(packet.object(packet.manifest.plan))
    recipe = decode_plan(record[KEY_BYTES + SIGNATURE_BYTES :]).recipe
    if "axes" not in recipe:
        raise ValueError("give axes: the recipe of this packet's plan names none")
    return Axes.of(recipe["axes"])


def scale(
    source: Packet | Layers, by: Scale, axes: Axes | None = None
) -> dict[str, dict[str, Tensor]]:
    """Return the layers of the model scaled down; what is not changed is not copied.

    Without `axes` those count that the recipe names in the plan which the packet carries.
    Raises: ValueError, one sentence, where the model cannot be scaled so; PacketError.
    """
    if not isinstance(by, Scale):
        raise TypeError(f"a model is scaled by a Scale, such as Scale(Fraction(1, 4)), not {by!r}")
    if axes is None:
        axes = axes_in(source) if isinstance(source, Packet) else Axes()
    if by.bits not in WAYS:
        known = ", ".join(str(bits) for bits in sorted(WAYS))
        raise ValueError(f"bits {by.bits}: weights can have {known} (0: as they are)")
    if by.depth > len(axes.blocks):
        raise ValueError(f"depth {by.depth}: the axes name {len(axes.blocks)} blocks")
    dropped = set(axes.blocks[by.depth :]) if by.depth else set()
    layers = {name: made for name, made in layers_of(source).items() if name not in dropped}
    if by.width < 1:
        layers = {
            layer: {name: _slice(name, tensor, by, axes) for name, tensor in tensors.items()}
            for layer, tensors in layers.items()
        }
        if not any(axes.cuts(name) for tensors in layers.values() for name in tensors):
            raise ValueError(f"width {by.width}: the axes name no tensor of this model")
    way = WAYS[by.bits]
    if way is None:
        return layers
    return {layer: commit(tensors, way).tensors for layer, tensors in layers.items()}


def _slice(name: str, tensor: Tensor, by: Scale, axes: Axes) -> Tensor:
    """Keep the first units of every axis that may be cut."""
    values = tensor.array()
    for cut in axes.cuts(name):
        if cut.axis >= values.ndim:
            raise ValueError(f"tensor {name!r} has no axis {cut.axis}: its axes are {tensor.shape}")
        extent = values.shape[cut.axis]
        try:
            entries = cut.entries(extent)
        except ValueError as exc:
            raise ValueError(f"tensor {name!r} cannot be cut: {exc}") from exc
        kept = by.kept(cut.units)
        before, after = values.shape[: cut.axis], values.shape[cut.axis + 1 :]
        runs = values.reshape(*before, cut.parts, cut.units * entries, *after)
        kept_runs = runs[(slice(None),) * (cut.axis + 1) + (slice(kept * entries),)]
        values = kept_runs.reshape(*before, cut.parts * kept * entries, *after)
    if values.shape == tensor.shape:
        return tensor
    flat = np.ascontiguousarray(values).reshape(-1)
    assert flat.size == prod(values.shape)
    return Tensor(tensor.dtype, values.shape, flat.view(np.uint8).data.toreadonly())
