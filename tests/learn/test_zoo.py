from __future__ import annotations

import pytest
import torch

from mfd.learn import zoo
from mfd.learn.layers import find_layers

PICTURE = {"inputs": [1, 8, 8], "classes": 10}


def size(recipe: dict[str, object]) -> int:
    return sum(p.numel() for p in zoo.build(recipe).parameters())


def test_sizes_are_the_published_ones() -> None:
    assert size({"zoo": "cnn", **PICTURE}) == 49_930
    assert size({"zoo": "cnn", "inputs": [1, 28, 28], "classes": 10}) == 107_978
    vgg = {"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 10}
    assert size(vgg | {"norm": "none"}) == 9_225_610
    assert size(vgg) == 9_225_610 + 2 * (64 + 128 + 2 * 256 + 4 * 512)


@pytest.mark.parametrize(
    ("recipe", "shape", "out", "layers"),
    [
        ({"zoo": "mlp", **PICTURE, "hidden": [32, 16]}, (3, 1, 8, 8), (3, 10), 3),
        ({"zoo": "mlp", **PICTURE, "hidden": []}, (3, 1, 8, 8), (3, 10), 1),
        ({"zoo": "cnn", **PICTURE}, (3, 1, 8, 8), (3, 10), 6),
        ({"zoo": "cnn", "inputs": [3, 32, 20], "classes": 4}, (2, 3, 32, 20), (2, 4), 6),
        (
            {"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 7, "width": 8},
            (2, 3, 32, 32),
            (2, 7),
            9,
        ),
    ],
)
def test_shapes_and_layers(
    recipe: dict[str, object], shape: tuple[int, ...], out: tuple[int, ...], layers: int
) -> None:
    module = zoo.build(recipe)
    assert tuple(module(torch.zeros(shape)).shape) == out
    assert len(find_layers(module)) == layers


def test_transformer_sees_no_future() -> None:
    module = zoo.init({"zoo": "transformer", "width": 16, "heads": 2, "depth": 2}, 1)
    tokens = torch.arange(12).view(1, 12)
    changed = tokens.clone()
    changed[0, 7:] = 200
    a, b = module(tokens), module(changed)
    assert a.shape == (1, 12, 256)
    assert torch.equal(a[:, :7], b[:, :7])
    assert not torch.equal(a[:, 7], b[:, 7])
    assert [x.name for x in find_layers(module)] == ["embedding", "block1", "block2", "head"]


def test_init_depends_on_the_seed_alone_and_leaves_the_callers_dice() -> None:
    recipe = {"zoo": "cnn", **PICTURE}
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one = zoo.init(recipe, 7)
    assert torch.equal(torch.get_rng_state(), before)
    two, other = zoo.init(recipe, 7), zoo.init(recipe, 8)
    assert torch.equal(one[0][0].weight, two[0][0].weight)
    assert not torch.equal(one[0][0].weight, other[0][0].weight)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        (
            {"zoo": "gnn"},
            "no recipe 'gnn' in the zoo; did you mean 'cnn'? There are cnn, mlp, transformer, vg",
        ),
        ({"zoo": "logit"}, "did you mean 'logits'? There are cnn, mlp, transformer"),
        ({}, "no recipe None"),
        ({"zoo": "cnn", **PICTURE, "depht": 3}, "no argument 'depht'; it has inputs, classes"),
        ({"zoo": "cnn", "inputs": [1, 8, 8]}, "lacks classes"),
        ({"zoo": "cnn", "inputs": [8, 8], "classes": 2}, "channels, height, width"),
        ({"zoo": "cnn", **PICTURE, "norm": "layer"}, "batch, static or none, not 'layer'"),
        ({"zoo": "cnn", **PICTURE, "norm": 3}, "norm is a word"),
        ({"zoo": "mlp", **PICTURE, "hidden": [1 << 40]}, "from 1 to 65536"),
        ({"zoo": "mlp", **PICTURE, "hidden": [4] * 500}, "500 entries"),
        ({"zoo": "transformer", "width": 10, "heads": 3}, "not a multiple of 3 heads"),
        ({"zoo": "transformer", "depth": 10_000}, "depth is a whole number from 1 to 192"),
        ({"zoo": "transformer", "dropout": 1.5}, "from 0 to 1"),
        ({"zoo": "cnn", "inputs": [1, 8, 8], "classes": True}, "whole number"),
    ],
)
def test_wrong_recipes_are_one_sentence(recipe: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        zoo.build(recipe)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
