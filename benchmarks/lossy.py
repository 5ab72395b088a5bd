"""What committing with loss costs and keeps, beside others that quantise: used by codec.py.

error: L2 norm of what was lost over that of the weights. Ours works twice: `commit` gives values,
which every peer must reproduce to the bit, and a residual; the wire form finds codes and scales.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import rivals
import torch

from mfd.packet import Encoding, Packet, commit, decode, encode

Tensors = dict[str, torch.Tensor]
Seconds = Callable[[Callable[[], Any], int], float]
HEADS = ["method", "size", "error", "commit GB/s", "encode GB/s", "decode GB/s"]


def rows(tensors: Tensors, seconds: Seconds, runs: int) -> Iterator[list[Any]]:
    """Yield a row a method; sizes are shares of the raw bytes."""
    size = sum(t.nbytes for t in tensors.values())
    for way, encoding in (("int8", Encoding.INT8), ("int4", Encoding.INT4)):
        yield ours(tensors, way, encoding, seconds, runs)
    for name, write, load in [*rivals.hivemind(tensors), *bitsandbytes(tensors)]:
        if "NONE" in name:
            continue
        made = write()
        lost = error(tensors, load(made))
        times = seconds(write, runs), seconds(lambda m=made, f=load: f(m), runs)
        share = nbytes(made) / size
        yield [name, f"{share:.4f}", f"{lost:.4f}", "-", *(size / t / 1e9 for t in times)]


def ours(tensors: Tensors, way: str, encoding: Encoding, seconds: Seconds, runs: int) -> list[Any]:
    size = sum(t.nbytes for t in tensors.values())
    done = commit(tensors, way)
    packet = Packet.from_tensors(done.tensors)
    data = b"".join(encode(packet, encoding))
    back = {name: t.torch() for name, t in decode(data).layer(0).items()}
    assert all(np.array_equal(back[n].numpy(), t.array()) for n, t in done.tensors.items())
    times = (
        seconds(lambda: commit(tensors, way), runs),
        seconds(lambda: encode(packet, encoding), runs),
        seconds(lambda: decode(data).layer(0), runs),
    )
    lost = error(tensors, [back[name] for name in tensors])
    rates = (size / t / 1e9 for t in times)
    return [
        f"MFD {way}, wire form {encoding.name}",
        f"{len(data) / size:.4f}",
        f"{lost:.4f}",
        *rates,
    ]


def error(tensors: Tensors, back: list[torch.Tensor]) -> float:
    lost = kept = 0.0
    for one, other in zip(tensors.values(), back, strict=True):
        lost += float((one - other.reshape(one.shape)).double().square().sum())
        kept += float(one.double().square().sum())
    return float((lost / kept) ** 0.5)


def nbytes(made: Any) -> int:
    return sum(len(part) if isinstance(part, bytes) else part for part in sized(made))


def sized(made: Any) -> Iterator[Any]:
    for part in made:
        if isinstance(part, bytes):
            yield part
        else:  # codes and their state
            codes, state = part
            yield codes.nbytes + state.absmax.nbytes


def bitsandbytes(tensors: Tensors) -> Iterator[tuple[str, Any, Any]]:
    try:
        from bitsandbytes import functional
    except ImportError:
        return
    for kind in ("nf4", "fp4"):

        def write(kind: str = kind) -> list[Any]:
            return [
                functional.quantize_4bit(t, blocksize=64, quant_type=kind) for t in tensors.values()
            ]

        def load(made: list[Any]) -> list[torch.Tensor]:
            return [functional.dequantize_4bit(codes, state) for codes, state in made]

        yield f"bitsandbytes {kind}, blocks of 64", write, load
