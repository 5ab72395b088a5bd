"""Cut a data set into parts: the same numbers give the same parts on every machine.

Rules of this file: numpy only; labels in, sorted indices out. Parts are disjoint and cover all.
"""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["PART_SAMPLES_MIN", "partition", "split_indices"]

PART_SAMPLES_MIN = 64  # two batches of 32: a holder with less teaches nothing and stops nothing
SPLIT_SEED = 20_240_506  # the 80/20 split never depends on an option
Indices = np.ndarray[Any, np.dtype[np.int64]]


def split_indices(labels: np.ndarray[Any, Any], part: str) -> Indices:
    """Indices of the fixed stratified split: 80 % of each label are "train", the rest is "test"."""
    rng = np.random.default_rng(SPLIT_SEED)
    chosen = []
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        cut = round(0.8 * len(members))
        chosen.append(members[:cut] if part == "train" else members[cut:])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def partition(
    labels: np.ndarray[Any, Any], parts: int, *, skew: float | None = None, seed: int = 0
) -> list[Indices]:
    """Cut samples into `parts`: evenly at random, or with label skew Dirichlet(`skew`).

    Every part gets at least PART_SAMPLES_MIN samples, or half of an even share where that is less.
    """
    rng = np.random.default_rng(seed)
    if skew is None:
        cuts = np.array_split(rng.permutation(len(labels)), parts)
        return [np.sort(cut) for cut in cuts]
    bins: list[list[Indices]] = [[] for _ in range(parts)]
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        shares = np.cumsum(rng.dirichlet(np.full(parts, skew)))[:-1]
        for held, piece in zip(
            bins, np.split(members, (shares * len(members)).astype(int)), strict=True
        ):
            held.append(piece)
    return _fill([np.concatenate(held) for held in bins], rng)


def _fill(cuts: list[Indices], rng: np.random.Generator) -> list[Indices]:
    """Move samples from the largest part to the smallest until all have the minimum."""
    minimum = min(PART_SAMPLES_MIN, sum(map(len, cuts)) // (2 * len(cuts)))
    while True:
        sizes = [len(cut) for cut in cuts]
        poor, rich = int(np.argmin(sizes)), int(np.argmax(sizes))
        lack = min(minimum - sizes[poor], sizes[rich] - minimum)
        if lack <= 0:
            return [np.sort(cut) for cut in cuts]
        mixed = rng.permutation(cuts[rich])
        cuts[poor] = np.concatenate([cuts[poor], mixed[:lack]])
        cuts[rich] = mixed[lack:]
