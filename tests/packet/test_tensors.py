from __future__ import annotations

import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

from mfd.packet import DTYPES, Tensor, pack_layer, unpack_layer
from mfd.packet.tensors import TORCH_NAMES
from tests.packet.values import address


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype="<f4").reshape(2, 3),
        np.array(3.5),
        np.zeros((0, 4), np.float16),
        np.array([True, False]),
        np.arange(4, dtype="<c8"),
        np.arange(4, dtype="<u2"),
    ],
)
def test_numpy_is_borrowed(array: np.ndarray[Any, Any]) -> None:
    """Rules: P-04"""
    tensor = Tensor.of(array)
    assert tensor.shape == array.shape
    assert not array.size or address(tensor.data) == array.__array_interface__["data"][0]
    back = tensor.array()
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)
    assert not back.flags.writeable


def test_other_layouts_are_copied_into_the_canonical_one() -> None:
    """Rules: P-03"""
    array = np.arange(6, dtype="<i4").reshape(2, 3)
    for other in (np.asfortranarray(array), array.astype(">i4"), array[::-1][::-1]):
        assert Tensor.of(other).data == Tensor.of(array).data
        assert Tensor.of(other).shape == (2, 3)


@pytest.mark.parametrize("value", [np.array(["text"]), np.array([None]), np.zeros(1, "<M8[s]")])
def test_what_cannot_travel(value: np.ndarray[Any, Any]) -> None:
    with pytest.raises(TypeError, match="cannot travel; known: bool"):
        Tensor.of(value)


@pytest.mark.parametrize("name", sorted(DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3, 4), (2, 0, 5)])
def test_torch_both_ways_without_a_copy(name: str, shape: tuple[int, ...]) -> None:
    """Rules: P-04"""
    torch = pytest.importorskip("torch")
    dtype = getattr(torch, TORCH_NAMES[name], None)
    if dtype is None:
        pytest.skip(f"this torch does not know {name}")
    raw = (torch.arange(int(np.prod(shape)) * dtype.itemsize) % 2).to(torch.uint8)
    value = raw.view(dtype).reshape(shape)
    tensor = Tensor.of(value)
    assert (tensor.dtype, tensor.shape) == (name, shape)
    assert bytes(tensor.data) == bytes(raw.numpy())
    there = unpack_layer(pack_layer({"x": value}).tobytes())["x"]
    back = there.torch()
    assert (back.dtype, tuple(back.shape)) == (dtype, shape)
    assert bytes(back.reshape(-1).view(torch.uint8).numpy()) == bytes(raw.numpy())
    if raw.numel():
        assert address(tensor.data) == value.data_ptr()
        assert address(there.data) == back.data_ptr()


def test_torch_tensor_outlives_its_source() -> None:
    torch = pytest.importorskip("torch")
    value = torch.arange(300_000, dtype=torch.int64)
    back = unpack_layer(pack_layer({"x": value}).tobytes())["x"].torch()
    bytearray(4 << 20)  # would reuse the memory, had it been freed
    assert torch.equal(back, value)


def test_torch_transposed_conjugate_and_sparse() -> None:
    torch = pytest.importorskip("torch")
    value = torch.arange(6.0).reshape(2, 3)
    assert bytes(Tensor.of(value.t()).data) == bytes(Tensor.of(value.t().contiguous()).data)
    turned = torch.tensor([1 + 2j]).conj()
    np.testing.assert_array_equal(Tensor.of(turned).array(), [1 - 2j])
    assert Tensor.of(torch.nn.Parameter(value)).shape == (2, 3)
    with pytest.raises(TypeError, match="sparse_coo"):
        Tensor.of(value.to_sparse())


def test_no_warning_about_read_only_memory() -> None:
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tensor("f32", (1,), memoryview(bytes(4))).torch() == torch.zeros(1)


PROBE = """
import sys
before = set(sys.modules)
import mfd.packet
new = set(sys.modules) - before
banned = "torch asyncio aiohttp cryptography ssl socket logging threading random".split()
print([name for name in banned if name in new])
try:
    mfd.packet.Tensor("f32", (), memoryview(bytes(4))).torch()
except RuntimeError as exc:
    print(exc)
"""


def test_importing_the_codec_loads_no_network_and_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\nimport torch before asking for torch tensors\n"
