"""Cut a data set into parts: the same numbers give the same parts on every machine.

Rules of this file: numpy only; labels in, sorted indices out. Parts are disjoint and cover all.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

__all__ = ["PART_SAMPLES_MIN", "Cut", "partition", "partition_groups", "split_indices"]

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


@dataclass(frozen=True, slots=True)
class Cut:
    """How a set is dealt out to holders: evenly at random, or by at most one of these."""

    skew: float | None = None  # Dirichlet alpha over the holders of each label
    shard: int | None = None  # labels a holder, each label dealt evenly to those who have it
    quantity: float | None = None  # Dirichlet alpha over how many samples a holder has
    by: str = ""  # what stays together, such as the lines of a role; "": nothing

    def __post_init__(self) -> None:
        """Raises: ValueError where two rules are given."""
        given = [f.name for f in fields(self) if getattr(self, f.name) not in (None, "")]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} cannot both decide who gets what")


def partition(
    labels: np.ndarray[Any, Any],
    parts: int,
    *,
    skew: float | None = None,
    shard: int | None = None,
    quantity: float | None = None,
    seed: int = 0,
) -> list[Indices]:
    """Cut samples into `parts`: evenly at random, or as one of the rules of `Cut` says.

    Every part gets at least PART_SAMPLES_MIN samples, or half of an even share where that is less;
    with `shard` it gets what its labels have.
    Raises: ValueError where so many parts of `shard` labels cannot have all labels and a sample.
    """
    rng = np.random.default_rng(seed)
    if shard is not None:
        return _shards(labels, parts, shard, rng)
    if quantity is not None:
        edges = np.cumsum(rng.dirichlet(np.full(parts, quantity)))[:-1] * len(labels)
        return _fill(np.split(rng.permutation(len(labels)), edges.astype(int)), rng)
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


def _shards(
    labels: np.ndarray[Any, Any], parts: int, shard: int, rng: np.random.Generator
) -> list[Indices]:
    """Every part has `shard` labels (all, where there are fewer); every label finds a part."""
    kinds, counts = np.unique(labels, return_counts=True)
    each = min(shard, len(kinds))
    if parts * each < len(kinds):
        raise ValueError(
            f"{parts} parts of {each} label(s) cannot hold {len(kinds)} labels: take more parts, "
            "or more labels a part"
        )
    holders: list[list[int]] = [[] for _ in kinds]
    for part in rng.permutation(parts):
        # the labels with the fewest holders first, in random order where they are equal
        order = sorted(rng.permutation(len(kinds)), key=lambda kind: len(holders[kind]))
        for kind in order[:each]:
            holders[kind].append(int(part))
    for kind, count, held in zip(kinds, counts, holders, strict=True):
        if count < len(held):
            raise ValueError(f"label {kind} has {count} sample(s) for {len(held)} parts")
    bins: list[list[Indices]] = [[] for _ in range(parts)]
    for kind, held in zip(kinds, holders, strict=True):
        members = rng.permutation(np.flatnonzero(labels == kind))
        for part, piece in zip(held, np.array_split(members, len(held)), strict=True):
            bins[part].append(piece)
    return [np.sort(np.concatenate(held)) for held in bins]


def partition_groups(groups: np.ndarray[Any, Any], parts: int, *, seed: int = 0) -> list[Indices]:
    """Cut samples into `parts` of about one size, without parting the samples of a group.

    Raises: ValueError where there are fewer groups than parts.
    """
    kinds, counts = np.unique(groups, return_counts=True)
    if len(kinds) < parts:
        raise ValueError(f"{len(kinds)} groups cannot be cut into {parts} parts")
    order = np.random.default_rng(seed).permutation(len(kinds))
    order = order[np.argsort(-counts[order], kind="stable")]  # large ones first
    sizes = np.zeros(parts, np.int64)
    owner = np.empty(len(kinds), np.int64)
    for group in order:
        owner[group] = int(np.argmin(sizes))
        sizes[owner[group]] += counts[group]
    owned = owner[np.searchsorted(kinds, groups)]
    return [np.flatnonzero(owned == part) for part in range(parts)]


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
