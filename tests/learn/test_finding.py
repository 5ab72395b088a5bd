"""Layers are found by themselves, or named by the owner."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mfd.learn import recipes
from mfd.learn.errors import LearnError
from mfd.learn.finding import find_layers, name_layers
from mfd.learn.layers import load_model, pack, pack_model
from mfd.learn.memory import state_bytes
from mfd.learn.patterns import fits, groups_of
from mfd.packet.cutting import cut_by_name
from tests.learn import hfmodels
from tests.learn.conftest import state_bytes as bytes_of


def names(module: nn.Module) -> list[str]:
    return [layer.name for layer in find_layers(module)]


def owned(module: nn.Module) -> list[str]:
    return [key for layer in find_layers(module) for key in layer.tensors]


STACKS = [f"transformer.{side}.block.{i}" for side in ("encoder", "decoder") for i in (0, 1)]
STAGES = [f"resnet.encoder.stages.{stage}.layers.{i}" for stage in (0, 1) for i in (0, 1)]


@pytest.mark.parametrize(
    ("recipe", "blocks"),
    [
        (hfmodels.GPT2, [f"transformer.h.{i}" for i in range(3)]),
        (hfmodels.OPT, [f"model.decoder.layers.{i}" for i in range(3)]),
        (hfmodels.LLAMA, [f"model.layers.{i}" for i in range(3)]),
        (hfmodels.BERT, [f"bert.encoder.layer.{i}" for i in range(3)]),
        (hfmodels.T5_ROWS, STACKS),
        (hfmodels.RESNET, STAGES),
    ],
)
def test_blocks_of_well_known_families(recipe: hfmodels.Recipe, blocks: list[str]) -> None:
    module = recipes.init(recipe, 1)
    assert names(module) == ["first", *blocks, "last"]
    keys = owned(module)
    tied = {id(t) for t in module.state_dict(keep_vars=True).values()}
    assert len(keys) == len(set(keys)) == len(tied)
    with torch.device("meta"):
        sketch = recipes.build(recipe)
    assert find_layers(sketch) == find_layers(module)
    assert state_bytes(sketch) == state_bytes(module)


def test_what_stands_beside_the_blocks() -> None:
    first, *_, last = find_layers(recipes.init(hfmodels.OPT, 1))
    assert all("embed" in key for key in first.tensors)
    assert last.tensors == tuple(f"model.decoder.final_layer_norm.{p}" for p in ("weight", "bias"))
    blocks = find_layers(recipes.init(hfmodels.T5_ROWS, 1))
    # between two stacks: with the block that runs before it
    assert blocks[2].name == "transformer.encoder.block.1"
    assert "transformer.encoder.final_layer_norm.weight" in blocks[2].tensors
    head = find_layers(recipes.init(hfmodels.BERT, 1))[-1]
    assert head.modules == ("bert.pooler", "classifier")


def test_a_tied_head_stays_tied_through_a_journey() -> None:
    one, two = recipes.init(hfmodels.GPT2, 1), recipes.init(hfmodels.GPT2, 2)
    made = pack_model(one)
    store = {ref.digest: content.tobytes() for ref, content in made}
    assert "lm_head.weight" not in owned(one)
    load_model(two, [ref for ref, _ in made], store.__getitem__)
    assert bytes_of(one) == bytes_of(two)
    assert two.lm_head.weight is two.transformer.wte.weight  # type: ignore[union-attr]


class Stages(nn.Module):
    """As ResNets are made: Sequentials of blocks of one class, with buffers inside."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.layer1 = nn.Sequential(Residual(), Residual())
        self.layer2 = nn.Sequential(Residual(), Residual())
        self.fc = nn.Linear(2, 3)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)
        self.norm = nn.BatchNorm2d(2)


def test_stages_of_a_network_of_convolutions() -> None:
    found = find_layers(Stages())
    blocks = [f"layer{s}.{i}" for s in (1, 2) for i in (0, 1)]
    assert [layer.name for layer in found] == ["first", *blocks, "last"]
    assert found[0].modules == ("stem",)
    assert "layer1.1.norm.running_mean" in found[2].tensors


def test_a_sequential_inside_a_sequential_is_cut_where_it_is_a_list_of_blocks() -> None:
    module = nn.Sequential(
        nn.Sequential(Residual(), Residual()), nn.Sequential(nn.Flatten(), nn.Linear(2, 2))
    )
    found = find_layers(module)
    assert [(layer.name, layer.start) for layer in found] == [("0.0", 0), ("0.1", 1), ("1", 2)]


def test_experts_are_no_blocks() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.h = nn.ModuleList(nn.ModuleDict({"experts": experts()}) for _ in range(2))

    def experts() -> nn.ModuleList:
        return nn.ModuleList(nn.Sequential(nn.Linear(2, 2)) for _ in range(3))

    assert names(Mixed()) == ["h.0", "h.1"]


def test_layers_named_by_the_owner() -> None:
    module = recipes.build(
        {**hfmodels.GPT2, "layers": {"low": ["*.wte", "*.wpe", "*.h.0"], "top": ["*"]}}
    )
    low, top = find_layers(module)
    assert (low.name, top.name) == ("low", "top")
    assert "transformer.h.0.ln_1.weight" in low.tensors
    assert "transformer.h.1.ln_1.weight" in top.tensors
    assert low.modules == ("transformer.wte", "transformer.wpe", "transformer.h.0")
    one, two = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)), nn.Linear(1, 1)
    name_layers(one, ["1", "0.*"])
    assert names(one) == ["1", "0.*"]
    for layers, words in (
        (["weight"], "no layer named by the owner has bias: add a pattern"),
        (["*", "bias"], "layer 'bias': no tensor is left that fits"),
        ({"a": "*"}, "layer 'a' is a list of patterns"),
        (["*", 3], "layers are patterns, or names with lists"),
        (7, "layers are patterns, or names with lists"),
        ({3: ["*"]}, "layer 3 is a list of patterns"),
        ({"a": ["*"] * 1025}, "at most 1024 patterns of 256 characters"),
        (["*" + "a" * 256], "at most 1024 patterns of 256 characters"),
    ):
        with pytest.raises(LearnError, match=words):
            name_layers(two, layers)  # type: ignore[arg-type]


def test_patterns_of_a_stranger_do_not_hang() -> None:
    key = "a" * 5_000 + "c"
    assert not fits(key, "*a" * 100 + "*b")  # each star goes on, and never back
    with pytest.raises(LearnError, match="1024 patterns for 2000 tensors are too many"):
        groups_of({"a": ["*"] * 1024}, 2_000)


def test_modules_of_a_layer_are_the_largest_whole_ones() -> None:
    inner = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
    module = nn.ModuleDict({"ab": nn.Linear(1, 1), "a": nn.ModuleDict({"b": inner})})
    name_layers(module, {"some": ["a.b.0", "ab.weight"], "rest": ["*"]})
    some, rest = find_layers(module)
    assert some.modules == ("a.b.0", "ab")
    assert rest.modules == ("a.b.1", "ab")
    name_layers(module, {"some": ["a.*"], "rest": ["*"]})
    assert [layer.modules for layer in find_layers(module)] == [("a",), ("ab",)]


def test_more_layers_than_a_packet_names_are_grouped() -> None:
    module = nn.Sequential(*(nn.Linear(1, 1) for _ in range(700)))
    found = find_layers(module)
    assert len(found) == 256
    assert [layer.index for layer in found] == list(range(256))
    assert found[0].name == "0..1"
    assert found[-1].tensors == ("699.weight", "699.bias")
    assert owned(module) == list(module.state_dict())
    starts = [layer.start for layer in found]
    assert starts == sorted(starts)  # type: ignore[type-var]


def test_long_names_are_grouped_too_since_a_manifest_has_an_end() -> None:
    module = nn.Sequential()
    for i in range(200):
        module.add_module("x" * 200 + str(i), nn.Linear(1, 1))
    found = find_layers(module)
    assert sum(len(layer.name) for layer in found) <= 16 << 10
    assert owned(module) == list(module.state_dict())


def test_memory_that_is_shared() -> None:
    """The same memory twice is one tensor; memory that overlaps otherwise is refused."""
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    module[1].weight.data = module[0].weight.data
    assert owned(module) == ["0.weight", "0.bias", "1.bias"]
    both = torch.zeros(6)
    module.register_buffer("a", both[:4])
    module.register_buffer("b", both[2:])
    with pytest.raises(LearnError, match=r"'a' and 'b' overlap in memory .*: clone one"):
        find_layers(module)
    module.register_buffer("b", both[4:])
    assert "b" in module.state_dict()
    module.register_buffer("a", torch.zeros(1).expand(4))
    with pytest.raises(LearnError, match="'a' is expanded: its elements share memory"):
        find_layers(module)


def test_tensors_without_values_are_shown_but_do_not_travel() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Linear(2, 2))
    (layer,) = find_layers(module)
    with pytest.raises(LearnError, match=r"'0.weight' is on the meta device: it has a shape but"):
        pack(module, layer)


@pytest.mark.parametrize(
    "recipe", [hfmodels.GPT2, hfmodels.OPT, hfmodels.LLAMA, hfmodels.BERT, hfmodels.RESNET]
)
def test_names_alone_give_the_same_layers_in_well_known_families(recipe: hfmodels.Recipe) -> None:
    module = recipes.init(recipe, 1)
    by_name = {layer: set(keys) for layer, keys in cut_by_name(sorted(owned(module))).items()}
    assert by_name == {layer.name: set(layer.tensors) for layer in find_layers(module)}
    assert list(by_name) == names(module)
