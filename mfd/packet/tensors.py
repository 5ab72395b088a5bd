"""Tensors as bytes: borrowed from numpy or torch on the way in, viewed by them on the way out.

Rules of this file: torch is never imported. It is used only where the caller has done so.
Source: spec/packet.md, section "Layer object".
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["DTYPES", "Buffer", "Tensor", "named_tensor"]

Buffer = bytes | bytearray | memoryview

# name -> (item bytes, numpy type that holds it without change)
DTYPES: dict[str, tuple[int, str]] = {
    "bool": (1, "|b1"),
    "u8": (1, "|u1"),
    "i8": (1, "|i1"),
    "u16": (2, "<u2"),
    "i16": (2, "<i2"),
    "u32": (4, "<u4"),
    "i32": (4, "<i4"),
    "u64": (8, "<u8"),
    "i64": (8, "<i8"),
    "f16": (2, "<f2"),
    "f32": (4, "<f4"),
    "f64": (8, "<f8"),
    "c32": (4, "<u4"),
    "c64": (8, "<c8"),
    "c128": (16, "<c16"),
    "bf16": (2, "<u2"),
    "f8_e4m3fn": (1, "|u1"),
    "f8_e5m2": (1, "|u1"),
    "f8_e4m3fnuz": (1, "|u1"),
    "f8_e5m2fnuz": (1, "|u1"),
    "f8_e8m0fnu": (1, "|u1"),
    "f4_e2m1fn_x2": (1, "|u1"),  # two numbers in a byte; the shape counts bytes
}
TORCH_NAMES = {
    "bool": "bool",
    "u8": "uint8",
    "i8": "int8",
    "u16": "uint16",
    "i16": "int16",
    "u32": "uint32",
    "i32": "int32",
    "u64": "uint64",
    "i64": "int64",
    "f16": "float16",
    "f32": "float32",
    "f64": "float64",
    "c32": "complex32",
    "c64": "complex64",
    "c128": "complex128",
    "bf16": "bfloat16",
    "f8_e4m3fn": "float8_e4m3fn",
    "f8_e5m2": "float8_e5m2",
    "f8_e4m3fnuz": "float8_e4m3fnuz",
    "f8_e5m2fnuz": "float8_e5m2fnuz",
    "f8_e8m0fnu": "float8_e8m0fnu",
    "f4_e2m1fn_x2": "float4_e2m1fn_x2",
}
_OF_TORCH = {f"torch.{theirs}": ours for ours, theirs in TORCH_NAMES.items()}
_OPAQUE = ("c32", "bf16", "f8_", "f4_")  # numpy holds them as integers and cannot tell them apart
_KNOWN_TO_BOTH = {n for n in DTYPES if not n.startswith(_OPAQUE)} - {"u16", "u32", "u64"}
_OF_NUMPY = {
    np.dtype(code).newbyteorder("="): name
    for name, (_, code) in DTYPES.items()
    if not name.startswith(_OPAQUE)
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor as little-endian, C-contiguous bytes that it borrows from its owner."""

    dtype: str  # a key of DTYPES
    shape: tuple[int, ...]
    data: memoryview  # format "B", read-only where the source is

    @classmethod
    def of(cls, value: Any) -> Tensor:
        """Borrow the bytes of a numpy array or a torch tensor.

        Copies only what is not contiguous, little-endian and in main memory.
        Raises: TypeError for an element type that the format does not know.
        """
        if isinstance(value, Tensor):
            return value
        if "torch" in sys.modules and isinstance(value, sys.modules["torch"].Tensor):
            return _borrow_torch(value)
        array = _as_array(value)
        name = _OF_NUMPY.get(array.dtype.newbyteorder("="))
        if name is None:
            raise _unknown(array.dtype)
        array = np.ascontiguousarray(array, dtype=DTYPES[name][1])
        return cls(name, np.shape(value), array.reshape(-1).view(np.uint8).data.toreadonly())

    def array(self) -> np.ndarray[Any, Any]:
        """View the bytes as a numpy array; bf16, fp8 and the like appear as unsigned integers."""
        return np.frombuffer(self.data, dtype=DTYPES[self.dtype][1]).reshape(self.shape)

    def torch(self) -> Any:
        """View the bytes as a torch tensor, without a copy.

        WARNING: the tensor shares memory that may be read-only or a file. Read it, or `clone` it.
        Reason: torch has no read-only tensors, so nothing stops a write but this sentence.
        Raises: RuntimeError where torch is not imported yet, or is too old for the element type.
        """
        torch = sys.modules.get("torch")
        if torch is None:
            raise RuntimeError("import torch before asking for torch tensors")
        dtype = getattr(torch, TORCH_NAMES[self.dtype], None)
        if dtype is None:
            raise RuntimeError(f"this torch {torch.__version__} does not know {self.dtype}")
        if not len(self.data):  # numpy's strides of nothing are 0: torch cannot view them anew
            return torch.empty(0, dtype=torch.uint8).view(dtype).reshape(self.shape)
        if self.dtype in _KNOWN_TO_BOTH:
            lent = _Writable(self.data, DTYPES[self.dtype][1], self.shape)
            return torch.from_numpy(np.asarray(lent))
        flat = torch.from_numpy(np.asarray(_Writable(self.data, "|u1", (len(self.data),))))
        return flat.view(dtype).reshape(self.shape)


class _Writable:
    """Lends read-only bytes as writable ones, and keeps their owner alive meanwhile.

    Source: numpy's array interface, version 3. torch warns about read-only arrays otherwise.
    """

    def __init__(self, data: memoryview, typestr: str, shape: tuple[int, ...]) -> None:
        self.owner = np.frombuffer(data, np.uint8)
        address, _ = self.owner.__array_interface__["data"]
        self.__array_interface__ = {
            "version": 3,
            "typestr": typestr,
            "shape": shape,
            "data": (address, False),
        }


def _borrow_torch(value: Any) -> Tensor:
    torch = sys.modules["torch"]
    name = _OF_TORCH.get(str(value.dtype))
    if value.layout is not torch.strided:
        raise _unknown(f"{value.dtype}, {value.layout}", "; make it dense first, with to_dense()")
    if name is None:
        hint = "; turn it into numbers first, with dequantize()" if value.is_quantized else ""
        raise _unknown(value.dtype, hint)
    if value.device.type == "meta":
        raise TypeError("it is a meta tensor, with a shape but no values: load its values first")
    shape = tuple(value.shape)
    plain = value.detach()
    if not plain.is_contiguous() or plain.device.type != "cpu" or plain.is_conj() or plain.is_neg():
        plain = plain.cpu().resolve_conj().resolve_neg().contiguous()
    if name in _KNOWN_TO_BOTH and 0 not in shape:
        return Tensor(name, shape, plain.numpy().data.cast("B").toreadonly())
    return Tensor(name, shape, plain.reshape(-1).view(torch.uint8).numpy().data.toreadonly())


def _as_array(value: Any) -> np.ndarray[Any, Any]:
    """Raises: TypeError for what is no array of numbers."""
    if isinstance(value, bytes | str | dict):  # numpy would make texts and objects of them
        raise TypeError(f"a value of type {type(value).__name__} is no array: only tensors travel")
    try:
        array = np.asarray(value)
    except ValueError:  # lists of unlike lengths
        raise TypeError(f"this {type(value).__name__} is no array: its rows are unlike") from None
    if array.dtype == object and not isinstance(value, np.ndarray):
        raise TypeError(f"a value of type {type(value).__name__} is no array: only tensors travel")
    return array


def named_tensor(name: str, value: Any) -> Tensor:
    """`Tensor.of`, with the tensor's name in what is said. Raises: TypeError."""
    try:
        return Tensor.of(value)
    except TypeError as exc:
        raise TypeError(f"tensor {name!r}: {exc}") from exc


def _unknown(dtype: object, hint: str = "") -> TypeError:
    return TypeError(f"element type {dtype} cannot travel; known: {', '.join(DTYPES)}{hint}")
