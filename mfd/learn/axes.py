"""Which axes of the zoo's models may be cut, and the recipe of what is left.

Rules of this file: axes are plain data that travels in a recipe under "axes"; whoever holds the
packet can scale the model, without knowing the zoo. A model of the scaled recipe takes the scaled
tensors as they are.
Source: spec/packet.md, section "Scale and merge"; arXiv 2010.01264 (ordered slices).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mfd.packet.manifest import Scale

__all__ = ["axes_of", "scaled_recipe", "with_axes"]

Recipe = Mapping[str, Any]
Cuts = dict[str, list[list[int]]]
Axes = dict[str, Any]


def with_axes(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe with its axes. Raises: ValueError where the zoo has no such model."""
    return {**recipe, "axes": axes_of(recipe)}


def axes_of(recipe: Recipe) -> Axes:
    """Return the axes of a model of the zoo in the plain form of `mfd.packet.Axes`.

    Raises: ValueError where the zoo has no such model or nothing of it may be cut.
    """
    made = _KNOWN.get(recipe.get("zoo", ""))
    if made is None:
        known = ", ".join(sorted(_KNOWN))
        name = recipe.get("zoo", "a model that is not of the zoo")
        raise ValueError(f"no axes are known of {name!r}; they are of {known}")
    return made[0](recipe)


def scaled_recipe(recipe: Recipe, by: Scale) -> dict[str, Any]:
    """Return the recipe of the model that `mfd.packet.scaling` makes of one of this recipe.

    Raises: ValueError where the zoo has no such model.
    """
    axes_of(recipe)
    bare = {key: value for key, value in recipe.items() if key != "axes"}
    return bare | _KNOWN[recipe["zoo"]][1](recipe, by)


def _mlp(recipe: Recipe) -> Axes:
    hidden = list(recipe.get("hidden", (64, 64)))
    cuts: Cuts = {}
    for i, units in enumerate(hidden):
        place = f"fc{i + 1}.{1 if i == 0 else 0}"
        cuts[f"{place}.weight"] = [[0, units], *([[1, hidden[i - 1]]] if i else [])]
        cuts[f"{place}.bias"] = [[0, units]]
    if hidden:
        cuts["head.weight"] = [[1, hidden[-1]]]
    return {"tensors": cuts, "blocks": []}


def _scaled_mlp(recipe: Recipe, by: Scale) -> dict[str, Any]:
    return {"hidden": [by.kept(units) for units in recipe.get("hidden", (64, 64))]}


def _convolutions(count: int, units: int, *, exits: bool) -> Cuts:
    """Cut channels: of the first convolution its outputs alone, and what a norm keeps of each."""
    cuts: Cuts = {}
    for i in range(1, count + 1):
        place = f"conv{i}.body" if exits else f"conv{i}"
        cuts[f"{place}.0.weight"] = [[0, units], *([[1, units]] if i > 1 else [])]
        cuts[f"{place}.0.bias"] = [[0, units]]
        for part in ("weight", "bias", "running_mean", "running_var"):
            cuts[f"{place}.1.{part}"] = [[0, units]]
        if exits:
            cuts[f"conv{i}.exit.2.weight"] = [[1, units]]
    return cuts


def _cnn(recipe: Recipe) -> Axes:
    width, hidden = recipe.get("width", 16), _cnn_hidden(recipe)
    exits, depth = recipe.get("exits", False), recipe.get("depth", 4)
    cuts = _convolutions(depth, width, exits=exits)
    fc, head = ("conv4.exit.1", "conv4.exit.3") if exits else ("fc.1", "head")
    if depth == 4:
        cuts.pop("conv4.exit.2.weight", None)
        cuts[f"{fc}.weight"] = [[0, hidden], [1, width]]
        cuts[f"{fc}.bias"] = [[0, hidden]]
        cuts[f"{head}.weight"] = [[1, hidden]]
    return {"tensors": cuts, "blocks": _blocks("conv", depth) if exits else []}


def _blocks(name: str, depth: int) -> list[str]:
    return [f"{name}{i}" for i in range(1, depth + 1)]


def _cnn_hidden(recipe: Recipe) -> int:
    _, height, breadth = recipe["inputs"]
    return int(recipe.get("hidden", 0)) or (64 if min(height, breadth) < 16 else 128)


def _scaled_cnn(recipe: Recipe, by: Scale) -> dict[str, Any]:
    width, hidden = recipe.get("width", 16), _cnn_hidden(recipe)
    return {"width": by.kept(width), "hidden": by.kept(hidden), **_depth(by)}


def _depth(by: Scale) -> dict[str, Any]:
    return {"depth": by.depth} if by.depth else {}


def _vgg11(recipe: Recipe) -> Axes:
    width = recipe.get("width", 64)
    exits, depth = recipe.get("exits", False), recipe.get("depth", 8)
    cuts = _convolutions(depth, width, exits=exits)
    if not exits:
        cuts["head.3.weight"] = [[1, width]]
    return {"tensors": cuts, "blocks": _blocks("conv", depth) if exits else []}


def _scaled_vgg11(recipe: Recipe, by: Scale) -> dict[str, Any]:
    return {"width": by.kept(recipe.get("width", 64)), **_depth(by)}


def _transformer(recipe: Recipe) -> Axes:
    heads, depth = recipe.get("heads", 4), recipe.get("depth", 4)
    inside = [[1, heads]]
    cuts: Cuts = {"embedding.token.weight": inside, "embedding.position.weight": inside}
    return _attention(cuts, heads, depth, end="1", exits=recipe.get("exits", False))


def _attention(cuts: Cuts, heads: int, depth: int, *, end: str, exits: bool) -> Axes:
    """Cut whole heads of attention, and as much of all that is as wide as they are together."""
    one, both = [[0, heads]], [[0, heads], [1, heads]]
    place, head = ("*.body", "*.exit") if exits else ("*", "head")
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "out.bias"):
        cuts[f"{place}.{name}"] = one
    cuts[f"{place}.qkv.weight"] = [[0, heads, 3], [1, heads]]
    cuts[f"{place}.qkv.bias"] = [[0, heads, 3]]
    for name in ("out.weight", "mlp.0.weight", "mlp.2.weight"):
        cuts[f"{place}.{name}"] = both
    cuts[f"{place}.mlp.0.bias"] = cuts[f"{place}.mlp.2.bias"] = one
    cuts[f"{head}.0.weight"] = cuts[f"{head}.0.bias"] = one
    cuts[f"{head}.{end}.weight"] = [[1, heads]]
    return {"tensors": cuts, "blocks": _blocks("block", depth)}


def _vit(recipe: Recipe) -> Axes:
    heads, depth = recipe.get("heads", 4), recipe.get("depth", 3)
    cuts: Cuts = {
        "patches.square.weight": [[0, heads]],
        "patches.square.bias": [[0, heads]],
        "patches.position.weight": [[1, heads]],
    }
    return _attention(cuts, heads, depth, end="2", exits=recipe.get("exits", False))


def _scaled_vit(recipe: Recipe, by: Scale) -> dict[str, Any]:
    width, heads = recipe.get("width", 32), recipe.get("heads", 4)
    kept = by.kept(heads)
    return {"width": width // heads * kept, "heads": kept, **_depth(by)}


def _scaled_transformer(recipe: Recipe, by: Scale) -> dict[str, Any]:
    width, heads = recipe.get("width", 64), recipe.get("heads", 4)
    kept = by.kept(heads)
    depth = by.depth or recipe.get("depth", 4)
    return {"width": width // heads * kept, "heads": kept, "depth": depth}


_KNOWN: dict[str, tuple[Callable[[Recipe], Axes], Callable[[Recipe, Scale], dict[str, Any]]]] = {
    "mlp": (_mlp, _scaled_mlp),
    "cnn": (_cnn, _scaled_cnn),
    "vgg11": (_vgg11, _scaled_vgg11),
    "transformer": (_transformer, _scaled_transformer),
    "vit": (_vit, _scaled_vit),
}
