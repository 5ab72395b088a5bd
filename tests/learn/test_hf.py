"""Models of Hugging Face: cut without a change, trained like others, built from plain values."""

from __future__ import annotations

import copy
import inspect

import numpy as np
import pytest
import torch

from mfd.learn import Holding, recipes
from mfd.learn.building import build_for
from mfd.learn.errors import LearnError
from mfd.learn.families import FAMILIES, NEVER, settings_of
from mfd.learn.hf import adapt, build, portable
from mfd.learn.layers import find_layers, indices_of, split_at
from mfd.learn.learner import Learner
from mfd.learn.training import Options, train
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnTask
from tests.learn import hfmodels
from tests.learn.conftest import packed, state_bytes

TOKENS = [hfmodels.GPT2, hfmodels.OPT, hfmodels.LLAMA, hfmodels.BERT, hfmodels.GPT2_ROWS]
WITH_LORA = [
    hfmodels.with_lora(hfmodels.GPT2),
    hfmodels.with_lora(hfmodels.BERT),
    hfmodels.with_lora(hfmodels.VIT, targets=["q_proj"]),
]


def some(recipe: hfmodels.Recipe, rows: int = 5) -> torch.Tensor:
    """Tokens whose rows end in padding at different places, or pictures."""
    generator = torch.Generator().manual_seed(3)
    if recipe["hf"]["class"] == hfmodels.PICTURES:
        return torch.randn(rows, 3, 8, 8, generator=generator)
    x = torch.randint(2, 60, (rows, 20), generator=generator)
    if recipe["hf"]["class"] == hfmodels.ROWS:
        pad = 1 if recipe["hf"]["config"]["model_type"] == "gpt2" else 0
        for i in range(1, rows):
            x[i, 20 - 3 * i :] = pad
    return x


@pytest.mark.parametrize("recipe", [*TOKENS, hfmodels.VIT, *WITH_LORA])
def test_split_equals_unsplit_to_the_bit(recipe: hfmodels.Recipe) -> None:
    module = recipes.init(recipe, 1)
    layers, x = find_layers(module), some(recipe)
    before = state_bytes(module)
    cut = 0
    with torch.no_grad():
        whole = module(x)
        for i in range(len(layers)):
            front, rest = split_at(module, layers, i)
            if front is not None:
                cut += 1
                values = front(x)
                assert torch.equal(rest(values), whole)
                assert torch.equal(copy.deepcopy(rest)(values), whole)
            else:
                assert rest is module
    # in front of the second block and later, of every kind of layer
    assert cut == (hfmodels.BLOCKS if "lora" not in recipe else 2 * hfmodels.BLOCKS - (
        1 if recipe["hf"]["class"] == "AutoModelForCausalLM" else 0)), cut  # fmt: skip
    assert torch.equal(module(x), whole)
    assert state_bytes(module) == before


@pytest.mark.parametrize("recipe", [hfmodels.T5_ROWS, hfmodels.RESNET])
def test_what_cannot_be_cut_stays_whole(recipe: hfmodels.Recipe) -> None:
    module = recipes.init(recipe, 1)
    layers = find_layers(module)
    fronts = [split_at(module, layers, i)[0] for i in range(len(layers))]
    assert fronts == [None] * len(layers)


def test_gradients_behind_the_cut_are_those_of_the_whole() -> None:
    module = recipes.init(hfmodels.BERT, 1)
    layers, x = find_layers(module), some(hfmodels.BERT)
    grads = []
    for cut in (False, True):
        front, rest = split_at(module, layers, 2)
        assert front is not None
        module.zero_grad(set_to_none=True)
        module.requires_grad_(False)
        block = module.get_submodule(layers[2].name).requires_grad_(True)
        with torch.no_grad():
            values = front(x)
        (rest(values) if cut else module(x)).square().sum().backward()
        grads.append([p.grad.clone() for p in block.parameters()])  # type: ignore[union-attr]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_padding_is_masked_and_only_padding() -> None:
    module = recipes.init(hfmodels.BERT, 1)
    short = torch.tensor([[5, 6, 7]])
    padded = torch.tensor([[5, 6, 7, 0, 0]])
    with torch.no_grad():
        assert torch.allclose(module(short), module(padded), rtol=0, atol=1e-6)
        other = torch.tensor([[5, 6, 7, 8, 0]])
        assert not torch.allclose(module(short), module(other), rtol=0, atol=1e-5)
        assert torch.isfinite(module(torch.zeros(1, 4, dtype=torch.int64))).all()


def test_a_model_of_the_owners_is_adapted_once_and_keeps_its_names() -> None:
    import transformers

    config = transformers.GPT2Config(**{
        k: v for k, v in hfmodels.GPT2["hf"]["config"].items() if k != "model_type"
    })  # fmt: skip
    own = transformers.GPT2LMHeadModel(config)
    keys = list(own.state_dict())
    assert adapt(adapt(own)) is own
    assert list(own.state_dict()) == keys
    assert own(torch.tensor([[1, 2, 3]])).shape == (1, 3, 64)
    plain = torch.nn.Linear(1, 1)
    assert adapt(plain) is plain
    assert not plain._forward_hooks


def text(samples: int = 48, length: int = 12) -> Holding:
    """A language with one rule: the next token is this one plus three."""
    starts = np.random.default_rng(1).integers(0, 64, (samples, 1))
    tokens = ((starts + 3 * np.arange(length + 1)) % 64).astype(np.int32)
    return Holding(tokens[:, :-1].copy(), tokens[:, 1:].copy(), 64)


def test_a_stop_trains_one_block_and_nothing_else() -> None:
    module = recipes.init(hfmodels.GPT2, 1)
    layers = find_layers(module)
    before = state_bytes(module)
    options = Options(epochs=20, batch=16, lr=1e-2, distill=0.0)
    claims = train(module, text(), trained=((2, 3),), options=options, seed=1)
    changed = {key for key, raw in state_bytes(module).items() if raw != before[key]}
    assert changed == set(layers[2].tensors)
    assert claims["loss"] < claims["loss_before"] - 0.1


def task(
    recipe: hfmodels.Recipe, module: torch.nn.Module, store: dict[bytes, bytes], **more
) -> LearnTask:
    kind = recipes.task_of(recipe)
    plan = Plan(recipe=recipe, names=("d",), home=bytes(32), task=kind, learn={"epochs": 1.0})
    return LearnTask("train", encode_plan(plan), packed(module, store), name="d", **more)


def test_a_peer_builds_and_trains_what_a_plan_names() -> None:
    store: dict[bytes, bytes] = {}
    module = recipes.init(hfmodels.GPT2, 1)
    learner = Learner({"d": text()})
    made: list[bytes] = []
    result = learner.perform(
        task(hfmodels.GPT2, module, store, trained=((1, 2),)),
        store.__getitem__,
        lambda item: made.append(item.digest),
    )
    assert [ref.name for ref in result.layers] == ["transformer.h.0"]
    assert made == [result.layers[0].digest]
    assert 0 < result.claims["loss"] < 5


def test_a_model_larger_than_its_packet_is_refused_before_memory_is_taken() -> None:
    store: dict[bytes, bytes] = {}
    config = {**hfmodels.GPT2["hf"]["config"], "n_embd": 1 << 16, "n_inner": 1 << 18}
    huge = {"hf": {"class": "AutoModelForCausalLM", "config": config}}
    order = task(huge, recipes.init(hfmodels.GPT2, 1), store, trained=((0, 5),))
    with pytest.raises(ValueError, match=r"the recipe needs \d{11,} bytes, the packet's layers"):
        Learner({"d": text()}).perform(order, store.__getitem__, lambda _: None)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"auto_map": {"AutoModel": "evil.py"}}, "config.auto_map is not allowed in a plan"),
        ({"_attn_implementation": "kernels-community/x"}, "is not allowed in a plan"),
        ({"backbone": "resnet50"}, "config.backbone is not allowed"),
        ({"quantization_config": {"load": True}}, "quantization_config is not allowed"),
        ({"deep": {"name_or_path": "x"}}, "config.deep.name_or_path is not allowed"),
        ({"n_layer": 100_000}, "config.n_layer is 100000, above 1024"),
        ({"n_embd": 1 << 40}, "config.n_embd is .*, above 2097152"),
        ({"model_type": "nothing"}, "transformers has no model_type 'nothing'"),
        ({"model_type": None}, "transformers has no model_type None"),
        ({"n_embd": 15}, "cannot be built|does not fit"),
        ({"n_embd": "many"}, "cannot be built|does not fit"),
    ],
)
def test_what_a_stranger_may_not_ask_for(change: dict[str, object], words: str) -> None:
    config = {**hfmodels.GPT2["hf"]["config"], **change}
    with pytest.raises(ValueError, match=words):
        build({"hf": {"config": config}})


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ({"hf": {"config": {}, "class": "AutoModel"}}, "class is one of AutoModelForCausalLM"),
        ({"hf": {"config": {}, "code": 1}}, "recipe hf has no 'code'"),
        ({"hf": []}, "a recipe with hf is"),
        ({**hfmodels.GPT2, "run": "x"}, "a recipe with hf has no 'run'"),
        ({"hf": {**hfmodels.GPT2["hf"], "dtype": "int8"}}, "dtype is one of float32"),
    ],
)
def test_recipes_that_are_none(recipe: hfmodels.Recipe, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        build(recipe)


def test_a_configuration_becomes_a_recipe_and_the_same_model_again() -> None:
    for recipe in (*TOKENS, hfmodels.VIT, hfmodels.RESNET):
        module = recipes.init(recipe, 1)
        made = portable(module.config, recipe["hf"]["class"])  # type: ignore[arg-type]
        again = recipes.init({"hf": made}, 1)
        assert state_bytes(again) == state_bytes(module)
        assert indices_of(((0, len(find_layers(again))),), len(find_layers(module)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        # a setting that the family does not declare, whatever it is called
        ({"_commit_hash": "main"}, r"config\._commit_hash is not allowed in a plan for gpt2"),
        ({"attn_impl": "flash"}, "config.attn_impl is not allowed in a plan for gpt2"),
        ({"return_dict": False}, "config.return_dict is not allowed in a plan for gpt2"),
        ({"id2label": {"0": "a"}}, "config.id2label is not allowed in a plan for gpt2"),
        # a value that could be a place
        ({"activation_function": "someone/kernels"}, "is 'someone/kernels', not a plain word"),
        ({"activation_function": {"a": 1}}, "is a number, a word or a list, not a table"),
        ({"n_inner": b"x"}, "config.n_inner is a bytes, not a plain value"),
        # sizes that take time or memory before the model is sized
        ({"num_labels": 1 << 20}, "config.num_labels is 1048576, above 65536"),
        ({"model_type": "mamba"}, "'mamba' is not one that a plan may name: albert, bart"),
    ],
)
def test_only_what_a_family_declares_and_plain_values(
    change: dict[str, object], words: str
) -> None:
    config = {**hfmodels.GPT2["hf"]["config"], **change}
    with pytest.raises(ValueError, match=words):
        build({"hf": {"config": config}})


def test_a_plan_cannot_ask_for_modules_without_end() -> None:
    config = {**hfmodels.RESNET["hf"]["config"], "depths": [1 << 21, 1 << 21]}
    with pytest.raises(ValueError, match="cannot be built: it has more than 16384 modules"):
        build({"hf": {"class": hfmodels.PICTURES, "config": config}})
    assert not torch.nn.modules.module._global_module_registration_hooks


def test_buffers_that_do_not_travel_are_sized_too() -> None:
    config = {
        "model_type": "gpt_neo", "num_layers": 2, "attention_types": [[["global", "local"], 1]],
        "hidden_size": 4, "num_heads": 2, "vocab_size": 8, "max_position_embeddings": 1 << 17,
    }  # fmt: skip
    recipe = {"hf": {"config": config}}
    layers = (LayerRef(0, "all", bytes(32), 1 << 22),)  # as large as its weights
    with pytest.raises(LearnError, match=r"needs 34359738\d+ bytes for buffers that do not trav"):
        build_for(recipe, layers, None)


@pytest.mark.parametrize(
    ("recipe", "task"),
    [
        ({"hf": {"config": {}, "class": ["x"]}}, "classification"),
        ({"hf": {"config": 1}}, "language"),
        ({"hf": ["gpt2"]}, "language"),
        ({**hfmodels.GPT2, "layers": 7}, "language"),
    ],
)
def test_a_recipe_of_the_wrong_form_is_one_sentence(recipe: hfmodels.Recipe, task: str) -> None:
    assert recipes.task_of(recipe) == task
    with pytest.raises(ValueError, match=r"recipe|layers are patterns"):
        build(recipe)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_that_a_plan_may_name_exists(family: str) -> None:
    from transformers import CONFIG_MAPPING

    assert {"num_labels"} <= settings_of(family)
    assert not {"id2label", "dtype", "auto_map"} & settings_of(family)
    # nothing that a family declares and a folder may set is lost on the way
    declared = set(inspect.signature(CONFIG_MAPPING[family].__init__).parameters)
    assert declared - settings_of(family) <= set(NEVER)
