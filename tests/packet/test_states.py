"""`state_dict` in and out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.packet import (
    State,
    Tensor,
    from_state_dict,
    map_safetensors,
    to_state_dict,
    write_safetensors,
)
from tests.packet.values import address

torch = pytest.importorskip("torch")
nn = torch.nn


class Tied(nn.Module):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Embedding(10, 4)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(4, 10)
        self.last.weight = self.first.weight


def test_a_tied_tensor_is_written_once_and_found_again() -> None:
    module = Tied().to(torch.bfloat16)
    state = from_state_dict(module.state_dict())
    assert state.aliases == {"last.weight": "first.weight"}
    assert "last.weight" not in state.tensors
    other = Tied().to(torch.bfloat16)
    other.load_state_dict(to_state_dict(state))
    for key, value in module.state_dict().items():
        assert torch.equal(other.state_dict()[key], value)
        assert other.state_dict()[key].dtype == value.dtype
    back = to_state_dict(state)
    assert back["last.weight"].data_ptr() == back["first.weight"].data_ptr()


def test_aliases_travel_as_the_original_library_has_them(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch")
    path = tmp_path / "m.safetensors"
    module, other = Tied(), Tied()
    state = from_state_dict(module.state_dict())
    path.write_bytes(b"".join(write_safetensors(state.tensors, state.aliases)))
    library.load_model(other, str(path))
    assert torch.equal(other.last.weight, module.last.weight)
    library.save_model(module, str(path))
    found = map_safetensors(path)
    assert len(found.aliases) == 1
    again = Tied()
    again.load_state_dict(to_state_dict(State(found.tensors, found.aliases)))
    assert torch.equal(again.first.weight, module.first.weight)


def test_nothing_is_copied() -> None:
    weight = torch.arange(6.0)
    state = from_state_dict({"w": weight})
    assert address(state.tensors["w"].data) == weight.data_ptr()
    assert to_state_dict(state)["w"].data_ptr() == weight.data_ptr()


def test_overlapping_tensors_of_other_form_are_written_each() -> None:
    weight = torch.arange(12.0).reshape(3, 4)
    views = {
        "w": weight,
        "square": weight[:, :3],
        "turned": weight[:, :3].T,
        "flat": weight.reshape(-1),
        "rest": weight[1:],
        "bits": weight.view(torch.int32),
    }
    state = from_state_dict(views)
    assert state.aliases == {}
    for name, found in to_state_dict(state).items():
        assert torch.equal(found, views[name])


def test_empty_tensors_are_no_aliases() -> None:
    state = from_state_dict({"a": torch.empty(0, 3), "b": torch.empty(0, 3), "c": np.empty(0)})
    assert state.aliases == {}


def test_a_conjugate_is_another_tensor() -> None:
    value = torch.tensor([1 + 2j])
    state = from_state_dict({"a": value, "b": value.conj()})
    assert state.aliases == {}
    assert to_state_dict(state)["b"].item() == 1 - 2j


def test_numpy_arrays_alias_too() -> None:
    array = np.arange(6.0)
    tensor = Tensor.of(np.arange(3))
    values: dict[str, Any] = {"a": array, "b": array[:], "c": array[1:], "d": array[::2]}
    state = from_state_dict({**values, "e": tensor, "f": tensor})
    assert state.aliases == {"b": "a", "f": "e"}
    assert np.array_equal(state.tensors["d"].array(), array[::2])


def test_plain_tensors_are_enough() -> None:
    assert to_state_dict({"w": Tensor.of(np.ones(2))})["w"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "'x' is a int, not a tensor"),
        (None, "'x' is a NoneType, not a tensor"),
        (torch.empty(2, device="meta"), "'x' is a meta tensor"),
        (torch.eye(2).to_sparse(), "cannot travel"),
    ],
)
def test_what_is_no_tensor_is_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        from_state_dict({"x": value})


def test_an_alias_of_nothing_is_refused() -> None:
    with pytest.raises(KeyError):
        to_state_dict(State({}, {"a": "b"}))


def test_torch_is_not_loaded_for_arrays() -> None:
    code = (
        "import sys, numpy, mfd.packet as p; s = p.from_state_dict({'w': numpy.ones(2)});"
        "p.write_safetensors(s.tensors); p.commit({'w': numpy.ones(2, 'f4')}, 'int8');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
