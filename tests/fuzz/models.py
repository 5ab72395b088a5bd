"""Models, plans and manifests to begin with: small, of many types and shapes, all of them sound.

Rules of this file: all chance comes from the generator handed in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mfd.packet import (
    DTYPES,
    Envelope,
    Kind,
    LayerRef,
    Manifest,
    Plan,
    Progress,
    Scale,
    Tensor,
    Way,
    commit,
    encode_envelope,
    encode_manifest,
    encode_plan,
)
from tests.fuzz.held import NAME, NUMBERS

UPON = [way for way in Way if way.needs_base]
ALONE = [way for way in Way if not way.needs_base]

Layers = Mapping[str, Mapping[str, Any]]


def weights(rng: np.random.Generator, count: int) -> Any:
    """Numbers as they lie in a trained layer."""
    return (rng.standard_normal(count) * 0.02).astype("<f4")


def _tensor(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> Tensor:
    size = DTYPES[dtype][0] * int(np.prod(shape))
    data = rng.integers(0, 2 if dtype == "bool" else 256, size).astype(np.uint8)
    return Tensor(dtype, shape, memoryview(data.tobytes()))


def models(rng: np.random.Generator) -> dict[str, Layers]:
    """Models by name, each of layers by name."""
    shapes = [(5, 3), (), (2, 0, 3), (17,)]
    types = {f"t/{d}": _tensor(rng, d, shapes[i % 4]) for i, d in enumerate(DTYPES)}
    halves = (weights(rng, 700).view("<u4") >> 16).astype("<u2")
    odd = np.array([np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45], "<f4")
    held, few = {"w": NUMBERS}, NUMBERS.copy()
    few[::97] = 0.5
    drift = {"w": (NUMBERS + weights(rng, NUMBERS.size) * 1e-3).astype("<f4")}
    shared = {"w": np.ones((4, 4), "<f4")}
    return {
        "tiny": {"block": {"w": weights(rng, 15).reshape(3, 5), "b": np.zeros(3, "<f4")}},
        "types": {"all": types, "none": {}},
        "rank": {"deep": {"r": np.zeros((1,) * 16, "u1"), "e": np.zeros((0,) * 16, "<f8")}},
        "names": {"\u00e9\U0001f600": {"z" * 512: np.ones(1)}, "shared": shared, "again": shared},
        "smooth": {
            "f32": {"w": weights(rng, 1500), "odd": odd},
            "bf16": {"h": Tensor("bf16", (700,), memoryview(halves.tobytes()))},
            "f16": {"h": weights(rng, 900).astype("<f2")},
            "i64": {"i": np.arange(500)},
            "bytes": {"u": rng.integers(0, 3, 2000).astype("u1")},
        },
        "committed": {way: commit({"w": weights(rng, 700)}, way).tensors for way in ALONE},
        **{way: {NAME: commit(drift, way, base=held).tensors} for way in UPON},
        "drift": {NAME: drift, "other": {"w": weights(rng, 8)}},
        "sparse": {NAME: {"w": few}},
        "many": {f"layer.{i}": {"w": weights(rng, 8)} for i in range(12)},
    }


def wide(rng: np.random.Generator) -> dict[str, Layers]:
    """Objects of two chunks; the content costs little to hash and to decode."""
    return {
        "wide": {"z": {"z": np.zeros((1 << 18) + 100, "<f4")}, "b": {"b": weights(rng, 4)}},
        "ramp": {"i": {"i": np.arange((1 << 17) + 9)}},
    }


def plan(rng: np.random.Generator, home: bytes) -> Plan:
    """A plan that uses every field."""
    return Plan(
        recipe={"zoo": "cnn", "inputs": [1, 8, 8], "axes": {"tensors": {"w": [[0, 4]]}}},
        names=("digits/train", "other"),
        home=home,
        verify=("digits/test",),
        seed=int(rng.integers(1 << 40)),
        learn={"lr": 0.001, "epochs": 1, "distill": None, "amp": True},
        extra={7: ["kept", {"a": 1, "b": [None, 2.5]}]},
    )


def headers(rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Manifests, plans and envelopes with their kind."""
    digests = [rng.bytes(32) for _ in range(6)]
    first = plan(rng, digests[0])
    yield "plan", encode_plan(first)
    yield "plan", encode_plan(Plan(recipe={}, names=("x",), home=digests[1], mode="walk"))
    layers = tuple(LayerRef(i, f"layer.{i}", digests[i % 3], 64 * (1 + i % 3)) for i in range(5))
    full = Manifest(
        walker=digests[3],
        model=digests[4],
        seq=5,
        layers=layers,
        plan=digests[5],
        trainer=digests[0],
        parents=(digests[1], digests[2]),
        trained=((0, 1), (1, 3), (4, 5)),
        scale=Scale(0.5, 3, 8),
        kind=Kind.ADAPTER,
        progress=Progress(2, 1, 40, 4, 3, (rng.bytes(8), rng.bytes(8)), rng.bytes(20)),
        claims={"samples": 128, "loss": 0.5, "norm": float("inf"), "who": "\u00e9"},
        software="mfd 0.1",
        extra={7: ["kept", {"a": 1}], 65_535: b"x"},
    )
    yield "manifest", encode_manifest(full)
    plain = Manifest(digests[0], digests[1], 0, layers[:1], digests[2], digests[3])
    yield "manifest", encode_manifest(plain)
    yield "envelope", encode_envelope(Envelope(destination="digits/train", hop_limit=9))
    yield "envelope", encode_envelope(Envelope(destination=digests[0], extra={13: [1, {"a": b""}]}))
