"""The axes of the zoo: a scaled packet is a model of the scaled recipe."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mfd.learn import zoo
from mfd.learn.axes import axes_of, scaled_recipe, with_axes
from mfd.learn.layers import find_layers
from mfd.packet import Axes, Packet, Scale, merge, scale

PICTURE: dict[str, Any] = {"inputs": [1, 8, 8], "classes": 10}
RECIPES: list[dict[str, Any]] = [
    {"zoo": "mlp", **PICTURE},
    {"zoo": "mlp", **PICTURE, "hidden": [30, 17, 5]},
    {"zoo": "mlp", **PICTURE, "hidden": []},
    {"zoo": "cnn", **PICTURE},
    {"zoo": "cnn", "inputs": [1, 28, 28], "classes": 10, "width": 6, "norm": "batch"},
    {"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 4, "width": 8},
    {"zoo": "transformer", "vocabulary": 50, "length": 8, "width": 24, "depth": 3, "heads": 6},
    {"zoo": "transformer"},
    {"zoo": "transformer", "vocabulary": 50, "length": 8, "width": 16, "exits": True},
    {"zoo": "cnn", **PICTURE, "exits": True},
    {"zoo": "cnn", "inputs": [1, 28, 28], "classes": 10, "exits": True, "norm": "fours"},
    {"zoo": "cnn", **PICTURE, "exits": True, "depth": 3, "norm": "static"},
    {"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 4, "width": 8, "exits": True},
    {"zoo": "vit", **PICTURE},
    {"zoo": "vit", **PICTURE, "exits": True, "width": 24, "heads": 3},
]
SCALES = [Scale(0.5), Scale(0.3), Scale(1), Scale(0.5, depth=2)]


def packet_of(recipe: dict[str, Any]) -> Packet:
    module = zoo.init(recipe, seed=3)
    state = module.state_dict()
    return Packet.from_tensors(
        {layer.name: {k: state[k] for k in layer.tensors} for layer in find_layers(module)}
    )


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r["zoo"])
@pytest.mark.parametrize("by", SCALES, ids=str)
def test_the_scaled_tensors_are_a_model_of_the_scaled_recipe(
    recipe: dict[str, Any], by: Scale
) -> None:
    """Rules: P-400, P-401, P-402, P-404"""
    axes = Axes.of(axes_of(recipe))
    impossible = by.depth > len(axes.blocks) or (by.width < 1 and not axes.tensors)
    if impossible:
        with pytest.raises(ValueError, match="axes name"):
            scale(packet_of(recipe), by, axes)
        return
    part = scale(packet_of(recipe), by, axes)
    small = zoo.build(scaled_recipe(recipe, by))
    state = {name: t.torch().clone() for layer in part.values() for name, t in layer.items()}
    small.load_state_dict(state)  # raises where a name or a shape is another
    if recipe["zoo"] == "transformer":
        inputs: Any = torch.zeros((2, 8), dtype=torch.long)
    else:
        inputs = torch.zeros((2, *recipe["inputs"]))
    assert torch.isfinite(small.eval()(inputs)).all()
    whole = packet_of(recipe)
    merged = merge(whole, [(part, 2.0)], axes)
    for name, tensors in whole.tensors().items():
        for key, tensor in tensors.items():
            assert merged[name][key].data == tensor.data


def test_every_cut_fits_its_tensor() -> None:
    for recipe in RECIPES:
        axes = Axes.of(axes_of(recipe))
        names = zoo.build(recipe).state_dict()
        for name, tensor in names.items():
            for cut in axes.cuts(name):
                assert cut.entries(tensor.shape[cut.axis]) >= 1


def test_axes_travel_in_the_recipe() -> None:
    recipe = with_axes(RECIPES[3])
    assert Axes.of(recipe["axes"]).cuts("conv2.0.weight")
    assert len(zoo.build(recipe)) == 6
    assert "axes" not in scaled_recipe(recipe, Scale(0.5))


@pytest.mark.parametrize("call", [axes_of, with_axes, lambda r: scaled_recipe(r, Scale())])
def test_an_unknown_model_is_named(call: Any) -> None:
    with pytest.raises(ValueError, match="no axes are known of 'moe'"):
        call({"zoo": "moe"})
