"""Adapters: the base never changes a bit, and PEFT reads what comes home."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mfd.learn import recipes
from mfd.learn.errors import LearnError
from mfd.learn.layers import find_layers, free_ranges, frozen_count
from mfd.learn.learner import Learner
from mfd.learn.lora import adapter_config, adapter_name
from mfd.packet.task import LayerRef
from tests.learn import hfmodels
from tests.learn.conftest import packed, state_bytes
from tests.learn.test_hf import task, text

GPT2 = hfmodels.with_lora(hfmodels.GPT2)
BERT = hfmodels.with_lora(hfmodels.BERT)
BASE = 5  # first, three blocks, last


def test_the_base_goes_first_and_every_block_has_its_adapter() -> None:
    layers = find_layers(recipes.init(GPT2, 1))
    assert frozen_count(layers) == BASE
    assert [layer.frozen for layer in layers] == [True] * BASE + [False] * 3
    assert layers[BASE].name == "base_model.model.transformer.h.0.adapter"
    assert all("lora_" in key for layer in layers[BASE:] for key in layer.tensors)
    last = find_layers(recipes.init(BERT, 1))[-1]
    assert last.name == "last.adapter"
    assert all("modules_to_save" in key for key in last.tensors)


def test_only_adapters_change_and_travel() -> None:
    """Rules: P-29"""
    store: dict[bytes, bytes] = {}
    module = recipes.init(GPT2, 1)
    before = state_bytes(module)
    learner = Learner({"d": text()})
    # even where a task asks for everything
    order = task(GPT2, module, store, trained=((0, BASE + 3),))
    written: list[bytes] = []
    result = learner.perform(order, store.__getitem__, lambda made: written.append(made.digest))
    assert [ref.index for ref in result.layers] == [5, 6, 7]
    assert len(written) == 3
    after = state_bytes(learner._module)  # type: ignore[arg-type]
    changed = {key for key, raw in after.items() if raw != before[key]}
    assert changed
    assert all("lora_" in key for key in changed)


def test_a_task_for_the_base_alone_is_refused() -> None:
    layers = find_layers(recipes.init(GPT2, 1))
    with pytest.raises(LearnError, match="hold frozen layers only"):
        free_ranges(((0, 4),), layers)
    assert free_ranges(((3, 6), (7, 8)), layers) == ((5, 6), (7, 8))


def refs(module: torch.nn.Module) -> tuple[LayerRef, ...]:
    return packed(module, {})


def plain(key: str) -> str:
    """The name that a tensor of the base has without PEFT."""
    own = key.removeprefix("base_model.model.")
    return own.replace(".base_layer", "").replace(".original_module", "")


@pytest.mark.parametrize("recipe", [GPT2, BERT], ids=["causal", "rows"])
def test_peft_loads_what_came_home(recipe: hfmodels.Recipe, tmp_path: Path) -> None:
    from peft import PeftModel

    module = recipes.init(recipe, 1)
    layers = find_layers(module)
    state = module.state_dict()
    with torch.no_grad():
        for layer in layers:
            if not layer.frozen:
                for key in layer.tensors:
                    state[key].normal_(generator=torch.Generator().manual_seed(4))
    free = [key for layer in layers if not layer.frozen for key in layer.tensors]
    save_file({adapter_name(k): state[k] for k in free}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text(adapter_config(recipe))

    base = recipes.init({"hf": recipe["hf"]}, 1)
    wanted = recipes.init(recipe, 1)
    assert refs(wanted)[:4] == refs(module)[:4]
    frozen = {key: value for key, value in state.items() if key not in free}
    base.load_state_dict({plain(key): value for key, value in frozen.items()})
    with warnings.catch_warnings():  # PEFT asks transformers under a name that is going away
        warnings.simplefilter("ignore", FutureWarning)
        loaded = PeftModel.from_pretrained(base, tmp_path)
    x = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(loaded(x), module(x))
        assert not torch.equal(module(x), wanted(x))


def test_names_of_the_base_have_no_place_in_peft_files() -> None:
    with pytest.raises(LearnError, match="is no tensor of an adapter"):
        adapter_name("base_model.model.wte.weight")


@pytest.mark.parametrize(
    ("lora", "words"),
    [
        ({"r": 0}, "r is a whole number from 1 to 4096"),
        ({"rank": 4}, "recipe lora has no 'rank'; it has r, alpha"),
        ({"alpha": -1}, "alpha is a number above 0"),
        ({"dropout": 2}, "dropout is a number from 0 to 1"),
        ({"targets": "c_attn"}, "targets is a list of names of modules"),
        ({"targets": ["nothing"]}, "cannot be built: .*nothing"),
    ],
)
def test_adapters_that_cannot_be(lora: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipes.build({**hfmodels.GPT2, "lora": lora})
