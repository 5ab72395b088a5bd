"""What else carries tensors, behind one pair of calls each: encode, and decode what that gave.

What is not installed is left out here and named by the caller.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import safetensors.torch
import torch

Tensors = dict[str, torch.Tensor]
Pair = tuple[Callable[[], Any], Callable[[Any], Any]]


def rivals(tensors: Tensors) -> Iterator[tuple[str, Callable[[], Any], Callable[[Any], Any]]]:
    """Yield (name, encode, decode of what that gave)."""
    arrays = {n: (t.view(torch.int16) if t.dtype == torch.bfloat16 else t).numpy()
              for n, t in tensors.items()}  # fmt: skip
    yield "safetensors", lambda: safetensors.torch.save(tensors), safetensors.torch.load
    load = lambda data: torch.load(io.BytesIO(data), weights_only=True)  # noqa: E731
    yield "torch.save / load(weights_only)", lambda: saved(tensors), load
    yield "pickle 5 of arrays, in band", lambda: pickle.dumps(arrays, 5), pickle.loads
    yield "numpy savez / load", lambda: savez(arrays), lambda b: dict(np.load(io.BytesIO(b)))
    yield from flower(arrays)
    yield from hivemind(tensors)


def saved(tensors: Tensors) -> bytes:
    file = io.BytesIO()
    torch.save(tensors, file)
    return file.getvalue()


def savez(arrays: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def flower(arrays: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    try:
        from flwr.common import ndarrays_to_parameters, parameters_to_ndarrays
        from flwr.common.serde import parameters_from_proto, parameters_to_proto
        from flwr.proto.transport_pb2 import Parameters
    except ImportError:
        return

    def write() -> bytes:  # fmt: skip
        message = parameters_to_proto(ndarrays_to_parameters(list(arrays.values())))
        return bytes(message.SerializeToString())

    def load(data: bytes) -> Any:  # fmt: skip
        return parameters_to_ndarrays(parameters_from_proto(Parameters.FromString(data)))

    yield "Flower parameters", write, load


def hivemind(tensors: Tensors) -> Iterator[tuple[str, Any, Any]]:
    try:
        from hivemind.compression import (
            deserialize_torch_tensor,
            quantization,
            serialize_torch_tensor,
        )
        from hivemind.proto import runtime_pb2
    except ImportError:
        return
    # Version 1.1.12 calls int() on an array of one element, which numpy refuses from 2.4 on.
    quantization.int = lambda value: int(np.asarray(value).reshape(-1)[0])
    half = next(iter(tensors.values())).dtype == torch.bfloat16
    for name in ("NONE", "BLOCKWISE_8BIT") if half else ("NONE", "FLOAT16", "BLOCKWISE_8BIT"):
        kind = getattr(runtime_pb2.CompressionType, name)

        def write(kind: int = kind) -> list[bytes]:
            return [serialize_torch_tensor(t, kind).SerializeToString() for t in tensors.values()]

        def load(parts: list[bytes]) -> Any:
            return [deserialize_torch_tensor(runtime_pb2.Tensor.FromString(p)) for p in parts]

        yield f"hivemind {name}", write, load


def zipnn_coders(raw: Any, kind: str, base: Any = None) -> list[tuple[Any, Any]] | None:
    """One and two threads. It changes its input in place, so each run works on a warm copy."""
    try:
        from zipnn import ZipNN
    except ImportError:
        return None
    source = np.frombuffer(raw, np.uint8)
    other = None if base is None else np.frombuffer(base, np.uint8)
    array = bytearray(len(source))
    room = np.frombuffer(array, np.uint8)
    found = []
    for threads in (1, 2):
        coder = ZipNN(input_format="byte", bytearray_dtype=kind, threads=threads)

        def write(coder: Any = coder) -> Any:  # fmt: skip
            if other is None:
                np.copyto(room, source)
            else:
                np.bitwise_xor(source, other, out=room)
            return coder.compress(array)

        def load(data: Any, coder: Any = coder) -> Any:  # fmt: skip
            out = np.frombuffer(coder.decompress(data), np.uint8)
            return out if other is None else np.bitwise_xor(out, other)

        found.append((write, load))
    return found


def blosc_coders(raw: Any, width: int, **settings: Any) -> list[tuple[Any, Any]] | None:
    try:
        import blosc2
    except ImportError:
        return None

    def threaded(count: int) -> tuple[Any, Any]:  # fmt: skip
        cparams = {"typesize": width, "nthreads": count, "blocksize": 0, **settings}

        def write() -> Any:  # fmt: skip
            return blosc2.compress2(raw, **cparams)

        return write, lambda data: blosc2.decompress2(data, nthreads=count)

    return [threaded(1), threaded(2)]
