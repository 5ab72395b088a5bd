"""Floats of 16 and 32 bits: widening, narrowing, and rounding to a few significant bits.

Rules of this file: integer arithmetic and single IEEE operations alone, so that every machine gets
the same bits. Sums over many elements and matrix products belong to nobody here.
Source: spec/packet.md, section "Committing with loss".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mfd.packet.tensors import DTYPES

__all__ = ["FLOATS", "Array", "cut", "narrow", "require_subnormals", "to_bf16", "widen"]

Array = np.ndarray[Any, Any]
FLOATS = ("f16", "bf16", "f32", "f64")  # what can be averaged


def widen(raw: Array, dtype: str) -> Array:
    """Return f16, bf16 or f32 (as Tensor.array gives them) as f32; f64 stays. Exact."""
    if dtype == "bf16":
        wide = raw.astype("<u4")
        wide <<= 16
        return wide.view("<f4")
    return raw.astype("<f4") if dtype == "f16" else raw


def narrow(values: Array, dtype: str) -> Array:
    """Round f32 (or f64, by way of f32) to a float type, half to even; the inverse of `widen`."""
    if dtype == "bf16":
        return (to_bf16(values.astype("<f4", copy=False)).view("<u4") >> 16).astype("<u2")
    if dtype == "f16":
        values = values.astype("<f4", copy=False)
    return values.astype(DTYPES[dtype][1], copy=False)


def to_bf16(values: Array) -> Array:
    """Round f32 to the values that bf16 has; still f32. What is not a number stays none."""
    bits = values.view("<u4")
    rounded = bits + (0x7FFF + ((bits >> 16) & 1))
    rounded &= 0xFFFF0000
    rounded[np.isnan(values)] = 0x7FC00000
    found: Array = rounded.view("<f4")
    return found


def cut(values: Array, bits: int) -> Array:
    """Round positive normal f32 to `bits` significant bits, half to even."""
    shift = 24 - bits
    whole = values.view("<u4")
    rounded = whole + (((1 << shift - 1) - 1) + ((whole >> shift) & 1))
    rounded &= 0xFFFFFFFF >> shift << shift
    found: Array = rounded.view("<f4")
    return found


def require_subnormals() -> None:
    """Refuse to work on a thread whose arithmetic drops subnormal numbers: its bits would differ.

    Raises: RuntimeError.
    """
    half = np.array([2.0**-126], "<f4") * np.float32(0.5)
    if half[0] == 0:
        raise RuntimeError(
            "this thread flushes subnormal numbers to zero, so its results would differ from "
            "those of other machines: call torch.set_flush_denormal(False)"
        )
