"""Layers from the names of tensors alone."""

from __future__ import annotations

import random

import pytest

from mfd.packet.cutting import cut_by_name
from mfd.packet.limits import LAYERS_MAX

GPT2 = ["wte.weight", "wpe.weight", "ln_f.weight", "lm_head.weight"]
GPT2 += [f"h.{i}.{part}" for i in range(12) for part in ("ln_1.weight", "attn.c.weight")]


def test_blocks_are_layers_between_what_lies_before_and_after() -> None:
    cut = cut_by_name(GPT2)
    assert list(cut) == ["first", *(f"h.{i}" for i in range(12)), "last"]
    assert cut["first"] == ["wpe.weight", "wte.weight"]
    assert cut["last"] == ["lm_head.weight", "ln_f.weight"]
    assert cut["h.10"] == ["h.10.attn.c.weight", "h.10.ln_1.weight"]


def test_the_order_of_the_names_does_not_matter() -> None:
    cut = cut_by_name(GPT2)
    for seed in range(5):
        names = random.Random(seed).sample(GPT2, len(GPT2))
        assert list(cut_by_name(names).items()) == list(cut.items())


@pytest.mark.parametrize(
    ("names", "layers"),
    [
        (["0.weight", "0.bias", "2.weight", "10.weight"], ["0", "2", "10"]),
        (["fc1.weight", "conv1.weight", "conv1.bias"], ["conv1", "fc1"]),
        (["classifier.0.w", "classifier.3.w", "features.0.w", "features.10.w", "features.2.w"],
         ["features.0", "features.2", "features.10", "classifier.0", "classifier.3"]),
        (["weight", "bias"], ["model"]),
        (["net.weight"], ["model"]),
        (["b", "fc.weight"], ["first", "fc"]),
        ([f"stage.{s}.block.{i}.conv.w" for s in (0, 1) for i in (0, 1)],
         [f"stage.{s}.block.{i}" for s in (0, 1) for i in (0, 1)]),
        ([f"l.{i}.{p}" for i in (0, 1) for p in ("sub.0.q.w", "sub.1.mlp.w")], ["l.0", "l.1"]),
        ([f"l.{i}.experts.{e}.up.w" for i in (0, 1) for e in range(4)], ["l.0", "l.1"]),
        ([f"{s}.block.{i}.q.w" for s in ("decoder", "encoder") for i in (0, 1)],
         [f"{s}.block.{i}" for s in ("encoder", "decoder") for i in (0, 1)]),
    ],
)  # fmt: skip
def test_how_models_are_cut(names: list[str], layers: list[str]) -> None:
    assert list(cut_by_name(names)) == layers


def test_a_stage_keeps_what_lies_beside_its_blocks() -> None:
    parts = [f"conv{n}.w" for n in range(10)]
    names = [f"stages.{s}.layers.{i}.{part}" for s in (0, 1) for i in (0, 1) for part in parts]
    cut = cut_by_name([*names, "stages.1.down.w", "head.weight"])
    assert list(cut) == [f"stages.{s}.layers.{i}" for s in (0, 1) for i in (0, 1)] + ["last"]
    assert "stages.1.down.w" in cut["stages.1.layers.1"]


def test_what_an_optimiser_keeps_lies_with_its_tensor() -> None:
    cut = cut_by_name([*GPT2, "~adam.m/h.3.attn.c.weight"])
    assert "~adam.m/h.3.attn.c.weight" in cut["h.3"]


@pytest.mark.parametrize("count", [255, 300, 1_000])
def test_there_are_never_more_layers_than_a_manifest_holds(count: int) -> None:
    names = [f"h.{i}.mlp.weight" for i in range(count)] + ["embed.weight", "head.weight"]
    cut = cut_by_name(names)
    assert len(cut) <= LAYERS_MAX
    assert sorted(name for layer in cut.values() for name in layer) == sorted(names)
    assert cut["last"] == ["head.weight"]
    long = [f"{'a' * 400}.{i}.mlp.weight" for i in range(count)]
    assert sum(map(len, cut_by_name(long))) <= 16 << 10


def test_every_name_is_in_one_layer_whatever_the_names() -> None:
    rng = random.Random(7)
    for _ in range(300):
        parts = ["0", "1", "2", "10", "a", "head", "h", "", "expert", "~x/h", "\u0664"]
        names = {
            ".".join(rng.choices(parts, k=rng.randint(1, 5))) for _ in range(rng.randint(1, 30))
        }
        cut = cut_by_name(names)
        assert sorted(name for layer in cut.values() for name in layer) == sorted(names)
