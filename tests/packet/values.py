"""Strategies for values that the format can carry."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mfd.packet import DTYPES, Kind, LayerRef, Manifest, Plan, Progress, Scale, Tensor
from mfd.packet.fields import INT_MAX

DIGESTS = st.binary(min_size=32, max_size=32)
NAMES = st.text(min_size=1, max_size=20)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
INTS = st.integers(-INT_MAX, INT_MAX)
SCALARS = st.none() | st.booleans() | INTS | FLOATS | st.text(max_size=20)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
EXTRA = st.dictionaries(
    st.integers(100, 30_000).map(lambda n: 2 * n + 1), SCALARS | st.binary(max_size=9), max_size=3
)


def address(data: memoryview) -> int:
    """Where in memory a buffer lies."""
    where, _ = np.frombuffer(data, np.uint8).__array_interface__["data"]
    return int(where)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    size = DTYPES[dtype][0] * prod(shape)
    top = 1 if dtype == "bool" else 255
    data = bytes(draw(st.lists(st.integers(0, top), min_size=size, max_size=size)))
    return Tensor(dtype, shape, memoryview(data))


LAYERS = st.dictionaries(NAMES, tensors(), max_size=5)


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    digests = draw(st.lists(DIGESTS, min_size=len(names), max_size=len(names)))
    sizes: dict[bytes, int] = {}
    cuts = sorted(draw(st.sets(st.integers(0, len(names)), max_size=4)))
    width = draw(st.sampled_from([(1, 1), (1, 2), (3, 4), (2, 65_535)]))
    scale = Scale(Fraction(*width), draw(st.integers(0, 65_535)), draw(st.integers(0, 64)))
    progress = Progress(
        lap=draw(st.integers(0, 2**32 - 1)),
        cursor=draw(st.integers(0, 256)),
        step=draw(st.integers(0, INT_MAX)),
        stops=draw(st.integers(0, 2**32 - 1)),
        holders=draw(st.integers(0, 2**32 - 1)),
        visited=tuple(draw(st.lists(st.binary(min_size=8, max_size=8), max_size=5, unique=True))),
        sampler=draw(st.binary(max_size=40)),
    )
    claims: dict[str, Any] = draw(
        st.dictionaries(NAMES, INTS | FLOATS | st.text(max_size=50), max_size=4)
    )
    return Manifest(
        walker=draw(DIGESTS),
        model=draw(DIGESTS),
        seq=draw(st.integers(0, INT_MAX)),
        layers=tuple(
            LayerRef(i, name, digest, sizes.setdefault(digest, draw(st.integers(1, 2**40))))
            for i, (name, digest) in enumerate(zip(names, digests, strict=True))
        ),
        plan=draw(DIGESTS),
        trainer=draw(DIGESTS),
        parents=tuple(draw(st.lists(DIGESTS, max_size=4, unique=True))),
        trained=tuple(pairwise(cuts)),
        scale=scale,
        kind=draw(st.sampled_from(Kind)),
        progress=progress,
        claims=claims,
        software=draw(st.text(max_size=20)),
        extra=draw(EXTRA),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    return Plan(
        recipe=draw(st.dictionaries(NAMES, PLAIN, max_size=3)),
        names=tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))),
        home=draw(DIGESTS),
        mode=draw(st.sampled_from(["snake", "walk", "fedavg", "distill"])),
        task=draw(NAMES.filter(lambda name: len(name.encode()) <= 64)),
        verify=tuple(draw(st.lists(NAMES, max_size=4, unique=True))),
        laps=draw(st.integers(1, 10_000)),
        order=draw(st.sampled_from(["lap", "stop", "sweep"])),
        layers_per_stop=draw(st.integers(0, 256)),
        head=draw(st.booleans()),
        full_laps=draw(st.integers(0, 10_000)),
        min_holders=draw(st.integers(1, 65_535)),
        seed=draw(st.integers(0, INT_MAX)),
        learn=draw(st.dictionaries(st.text(min_size=1, max_size=16), SCALARS, max_size=4)),
        first=draw(st.booleans()),
        body=draw(st.sampled_from([None, (0, 1), (3, 256)])),
        extra=draw(EXTRA),
    )
