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
        raise ValueError(f"no axes are known of {recipe.get('zoo')!r}; they are of {known}")
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


def _convolutions(count: int, units: int) -> Cuts:
    """Cut channels: of the first convolution its outputs alone, and what a norm keeps of each."""
    cuts: Cuts = {}
    for i in range(1, count + 1):
        cuts[f"conv{i}.0.weight"] = [[0, units], *([[1, units]] if i > 1 else [])]
        cuts[f"conv{i}.0.bias"] = [[0, units]]
        for part in ("weight", "bias", "running_mean", "running_var"):
            cuts[f"conv{i}.1.{part}"] = [[0, units]]
    return cuts


def _cnn(recipe: Recipe) -> Axes:
    width, hidden = recipe.get("width", 16), _cnn_hidden(recipe)
    cuts = _convolutions(4, width)
    cuts["fc.1.weight"] = [[0, hidden], [1, width]]
    cuts["fc.1.bias"] = [[0, hidden]]
    cuts["head.weight"] = [[1, hidden]]
    return {"tensors": cuts, "blocks": []}


def _cnn_hidden(recipe: Recipe) -> int:
    _, height, breadth = recipe["inputs"]
    return int(recipe.get("hidden", 0)) or (64 if min(height, breadth) < 16 else 128)


def _scaled_cnn(recipe: Recipe, by: Scale) -> dict[str, Any]:
    width, hidden = recipe.get("width", 16), _cnn_hidden(recipe)
    return {"width": by.kept(width), "hidden": by.kept(hidden)}


def _vgg11(recipe: Recipe) -> Axes:
    width = recipe.get("width", 64)
    cuts = _convolutions(8, width)
    cuts["head.3.weight"] = [[1, width]]
    return {"tensors": cuts, "blocks": []}


def _scaled_vgg11(recipe: Recipe, by: Scale) -> dict[str, Any]:
    return {"width": by.kept(recipe.get("width", 64))}


def _transformer(recipe: Recipe) -> Axes:
    heads, depth = recipe.get("heads", 4), recipe.get("depth", 4)
    one, both = [[0, heads]], [[0, heads], [1, heads]]
    inside = [[1, heads]]
    cuts: Cuts = {"embedding.token.weight": inside, "embedding.position.weight": inside}
    for name in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias", "out.bias"):
        cuts[f"*.{name}"] = one
    cuts["*.qkv.weight"] = [[0, heads, 3], [1, heads]]
    cuts["*.qkv.bias"] = [[0, heads, 3]]
    for name in ("out.weight", "mlp.0.weight", "mlp.2.weight"):
        cuts[f"*.{name}"] = both
    cuts["*.mlp.0.bias"] = cuts["*.mlp.2.bias"] = one
    cuts["head.0.weight"] = cuts["head.0.bias"] = one
    cuts["head.1.weight"] = inside
    return {"tensors": cuts, "blocks": [f"block{i}" for i in range(1, depth + 1)]}


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
}
