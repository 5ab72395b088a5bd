from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.layers import (
    TORCH_DTYPES,
    export_safetensors,
    find_layers,
    load,
    load_model,
    pack,
    pack_model,
    split_at,
)
from mfd.packet.objects import pack_layer, unpack_layer
from tests.learn.conftest import fresh, state_bytes


class Blocks(nn.Module):
    """As language models are made: a list of blocks with tensors before and after, head tied."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))
        self.wte = nn.Embedding(9, 4)
        self.h = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.ln_f = nn.LayerNorm(4)
        self.lm_head = nn.Linear(4, 9, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.wte(x) * self.scale
        for block in self.h:
            y = y + block(y)
        out: torch.Tensor = self.lm_head(self.ln_f(y))
        return out


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(2, 3)


def names(module: nn.Module) -> list[tuple[str, tuple[str, ...]]]:
    return [(layer.name, layer.tensors) for layer in find_layers(module)]


def test_sequential_joins_what_has_no_state_to_the_layer_before() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.BatchNorm1d(3), nn.Tanh())
    found = find_layers(module)
    assert [layer.modules for layer in found] == [("0", "1", "2"), ("3", "4")]
    assert found[0].start == 0
    assert found[1].start == 3
    assert "3.running_mean" in found[1].tensors
    assert "3.num_batches_tracked" in found[1].tensors


def test_block_list_with_first_last_and_a_tied_head() -> None:
    assert names(Blocks()) == [
        ("first", ("scale", "wte.weight")),
        ("h.0", ("h.0.weight", "h.0.bias")),
        ("h.1", ("h.1.weight", "h.1.bias")),
        ("h.2", ("h.2.weight", "h.2.bias")),
        ("last", ("ln_f.weight", "ln_f.bias")),
    ]


def test_children_where_there_is_no_block_list() -> None:
    assert [name for name, _ in names(Plain())] == ["features.0", "features.2", "head"]


def test_every_tensor_belongs_to_one_layer() -> None:
    for module in (Blocks(), Plain(), fresh()):
        keys = [key for layer in find_layers(module) for key in layer.tensors]
        assert len(keys) == len(set(keys))
        tied = {id(t) for t in module.state_dict(keep_vars=True).values()}
        assert len(keys) == len(tied)


def test_a_module_without_state_is_refused() -> None:
    with pytest.raises(LearnError, match="nothing to learn"):
        find_layers(nn.Sequential(nn.ReLU()))


def test_round_trip_into_another_module_keeps_tied_tensors_tied() -> None:
    one, two = Blocks(), Blocks()
    made = pack_model(one)
    store = {ref.digest: content.tobytes() for ref, content in made}
    load_model(two, [ref for ref, _ in made], store.__getitem__)
    assert state_bytes(one) == state_bytes(two)
    assert two.lm_head.weight is two.wte.weight


@pytest.mark.filterwarnings("ignore:ComplexHalf")
@pytest.mark.parametrize("name", sorted(TORCH_DTYPES))
def test_every_element_type_travels_bit_for_bit(name: str) -> None:
    raw = torch.arange(1, 33, dtype=torch.uint8)
    if name == "bool":
        raw = raw % 2
    one, two = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for module, content in ((one, raw), (two, torch.zeros_like(raw))):
        module.register_buffer("b", content.clone().view(TORCH_DTYPES[name]))
        module.register_buffer("scalar", content[:16].clone().view(TORCH_DTYPES[name])[0].clone())
    root = nn.Sequential(one), nn.Sequential(two)
    (layer,) = find_layers(root[0])
    made = pack(root[0], layer)
    load(root[1], layer, made.tobytes())
    assert pack(root[1], layer).digest == made.digest
    assert unpack_layer(made.tobytes())["0.b"].dtype == name


def test_parameters_that_are_not_contiguous_are_loaded_too() -> None:
    one = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    two = nn.Sequential(nn.Conv2d(3, 4, 3)).to(memory_format=torch.channels_last)
    assert not one[0].weight.is_contiguous()
    (layer,) = find_layers(one)
    load(two, layer, pack(one, layer).tobytes())
    assert torch.equal(one[0].weight, two[0].weight)


def test_pack_borrows_the_modules_memory() -> None:
    module = nn.Sequential(nn.Linear(64, 64))
    made = pack(module, find_layers(module)[0])
    addresses = {np.frombuffer(p, np.uint8).ctypes.data for p in made.parts if len(p)}
    assert module[0].weight.data_ptr() in addresses


def test_what_does_not_fit_is_one_sentence() -> None:
    module = nn.Sequential(nn.Linear(2, 2))
    (layer,) = find_layers(module)
    good = {"0.weight": np.zeros((2, 2), np.float32), "0.bias": np.zeros(2, np.float32)}
    before = state_bytes(module)
    for change, words in (
        ({"0.bias": np.zeros(3, np.float32)}, r"'0.bias' is f32\[3\] in the packet but f32\[2\]"),
        ({"0.bias": np.zeros(2, np.float64)}, r"'0.bias' is f64\[2\] in the packet"),
        ({"0.extra": np.zeros(2, np.float64)}, r"layer '0' does not have the tensors .* 0.extra"),
    ):
        with pytest.raises(LearnError, match=words):
            load(module, layer, pack_layer(good | change).tobytes())
    assert set(before) == set(state_bytes(module))


def test_split_shares_modules_and_gives_the_same_result() -> None:
    module = fresh()
    found = find_layers(module)
    x = torch.randn(4, 1, 8, 8)
    for index in range(1, len(found)):
        front, rest = split_at(module, found, index)
        assert front is not None
        assert torch.equal(rest(front(x)), module(x))
        assert sum(1 for _ in front.parameters()) == sum(len(f.tensors) for f in found[:index])
    assert split_at(module, found, 0) == (None, module)
    blocks = Blocks()
    assert split_at(blocks, find_layers(blocks), 2) == (None, blocks)


def test_export_safetensors(tmp_path: Path) -> None:
    module = Blocks()
    export_safetensors(tmp_path / "m.safetensors", module)
    read = load_file(tmp_path / "m.safetensors")
    assert set(read) == {key for layer in find_layers(module) for key in layer.tensors}
    assert torch.equal(read["h.1.weight"], module.h[1].weight)  # type: ignore[arg-type]
