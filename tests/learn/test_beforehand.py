"""What a sender is told before anything travels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="models are tried")

from torch import nn

from mfd.learn.beforehand import check_model, check_plan
from mfd.learn.errors import LearnError
from mfd.learn.holdings import Holding
from mfd.learn.samples import Sample
from mfd.packet.extent import Scale
from mfd.packet.plan import Plan
from mfd.packet.scales import SCALES_KEY, plain_scales

DIGITS = Sample((1, 8, 8), 10)
COLOUR = Sample((3, 32, 32), 10)
TEXT = Sample((64,), 256, text=True, whole=True)
ROWS = Sample((13,), 3)
PICTURE = {"inputs": [1, 8, 8], "classes": 10}
CNN = {"zoo": "cnn", **PICTURE}
PLAN = Plan(recipe=CNN, names=("d",), home=bytes(32))


@pytest.mark.parametrize(
    ("recipe", "sample"),
    [
        (CNN, DIGITS),
        ({**CNN, "exits": True}, DIGITS),
        ({"zoo": "mlp", "inputs": [64], "classes": 12}, DIGITS),
        ({"zoo": "vit", **PICTURE}, DIGITS),
        ({"zoo": "vgg11", "inputs": [3, 32, 32], "classes": 10}, COLOUR),
        ({"zoo": "transformer"}, TEXT),
        ({"zoo": "mlp", "inputs": [13], "classes": 3}, ROWS),
        ({"local": "Own"}, DIGITS),  # what it is, its owner alone knows
    ],
)
def test_what_fits_is_let_through(recipe: dict[str, Any], sample: Sample) -> None:
    check_model(recipe, sample, "d")


@pytest.mark.parametrize(
    ("recipe", "sample", "said"),
    [
        (
            {"zoo": "vgg11", **PICTURE},
            DIGITS,
            "vgg11 does not take samples of shape 1x8x8 (d): it takes pictures from 1x32x32 on; "
            "what does is cnn:inputs=1x8x8,classes=10 or mlp:inputs=1x8x8,classes=10 or "
            "vit:inputs=1x8x8,classes=10",
        ),
        ({"zoo": "vgg11", "inputs": [1, 32, 32], "classes": 10}, DIGITS, "pictures from 1x32x32"),
        ({**CNN, "inputs": [1, 28, 28]}, DIGITS, "its recipe says inputs=1x28x28; what does"),
        ({**CNN, "classes": 5}, DIGITS, "cnn answers 5 classes, and d has 10: give it classes=10"),
        ({"zoo": "transformer", "length": 32}, TEXT, "its length is 32; what does is transformer"),
        ({"zoo": "transformer", "vocabulary": 99}, TEXT, "answers 99 tokens, and d has 256"),
        ({"zoo": "mlp", "inputs": [4], "classes": 3}, ROWS, "what does is mlp:inputs=13,classes=3"),
        (CNN, TEXT, "what does is transformer:vocabulary=256,length=64"),
        ({"zoo": "logits", "samples": 9, "classes": 10}, DIGITS, "logits is no model but what"),
        ({"zoo": "cnn"}, DIGITS, "recipe 'cnn' lacks inputs, classes"),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(
    recipe: dict[str, Any], sample: Sample, said: str
) -> None:
    with pytest.raises(LearnError) as caught:
        check_model(recipe, sample, "d")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"task": "language"}, "but d holds labelled samples: set task = classification"),
        ({"recipe": {"zoo": "vgg11", **PICTURE}}, "its recipe's own inputs|does not take"),
        ({"recipe": {"zoo": "logits", "samples": 9, "classes": 10}}, "no model but what peers"),
        ({"mode": "distill", "learn": {"share": "prototypes"}}, "has the recipe prototypes, not c"),
        (
            {"mode": "distill", "recipe": {"zoo": "logits", "samples": 9, "classes": 10}},
            "shares proxy has a model as its proxy, not logits",
        ),
        ({"extra": {SCALES_KEY: plain_scales([Scale(1, 2)])}}, "no blocks .* without exits=true"),
        (
            {
                "recipe": {"zoo": "vit", **PICTURE},
                "extra": {SCALES_KEY: plain_scales([Scale(0.5), Scale(1, 7)])},
            },
            "depth 7 of vit cannot be trained: it has 3 blocks",
        ),
        (
            {"recipe": {"hf": {}}, "extra": {SCALES_KEY: plain_scales([Scale(0.5)])}},
            "scales are for models of the zoo alone",
        ),
    ],
)
def test_plans_that_could_learn_nowhere(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(LearnError, match=said):
        check_plan(replace(PLAN, **changes), None, {"d": DIGITS})


def test_plans_that_fit() -> None:
    check_plan(PLAN, None, {"d": DIGITS})
    check_plan(replace(PLAN, extra={SCALES_KEY: plain_scales([Scale(0.5)])}), None, {})
    table = {"zoo": "prototypes", "classes": 10, "width": 8}
    check_plan(replace(PLAN, mode="distill", recipe=table, learn={"share": "prototypes"}), None, {})
    own = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    check_plan(replace(PLAN, recipe={"local": "own"}), own, {"d": DIGITS})
    with pytest.raises(LearnError, match="the model does not take samples of shape 13 "):
        check_plan(replace(PLAN, recipe={"local": "own"}), own, {"d": ROWS})


def test_a_sample_is_told_as_json() -> None:
    held = Holding(np.zeros((4, 1, 8, 8), np.float32), np.arange(4), 10)
    assert Sample.of(held) == DIGITS
    assert Sample.read(DIGITS.plain()) == DIGITS
    for odd in (None, {}, {**DIGITS.plain(), "shape": [0]}, {**DIGITS.plain(), "classes": "ten"}):
        assert Sample.read(odd) is None
