"""Top-k: of a change, only the largest elements are committed.

Rules of this file: which elements those are is a matter of bits, not of a sorting library: equal
ones are taken in their order.
Source: spec/packet.md, section "Committing with loss" (P-306).
"""

from __future__ import annotations

import numpy as np

from mfd.packet.floats import Array

__all__ = ["commit_largest"]


def commit_largest(wanted: Array, base: Array, one_in: int, out: Array) -> float:
    """Write `base` with the largest one in `one_in` changes taken from `wanted`; flat f32 each.

    Returns the bound of what is left out.
    Raises: FloatingPointError where an element or a difference is not finite.
    """
    np.subtract(wanted, base, out=out)
    if not np.isfinite(out).all():
        raise FloatingPointError
    sizes = out.view("<u4") & np.uint32(0x7FFFFFFF)  # as integers, magnitudes order as floats do
    keep = -(-sizes.size // one_in)
    if keep == sizes.size:
        np.copyto(out, np.where(sizes != 0, wanted, base))
        return 0.0
    edge = np.partition(sizes, sizes.size - keep)[sizes.size - keep]
    kept = sizes > edge
    equals = np.flatnonzero(sizes == edge)[: keep - np.count_nonzero(kept)]
    kept[equals] = True
    lost = sizes[~kept].max().view("<f4")
    np.copyto(out, base)
    kept &= sizes != 0
    out[kept] = wanted[kept]
    return float(lost) * (1 + 2.0**-23)
