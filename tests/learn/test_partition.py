from __future__ import annotations

import numpy as np
import pytest

from mfd.learn.partition import PART_SAMPLES_MIN, partition, split_indices

LABELS = np.random.default_rng(0).integers(0, 10, 1500)


@pytest.mark.parametrize("skew", [None, 0.05, 0.3, 100.0])
@pytest.mark.parametrize("parts", [1, 2, 5, 12])
def test_parts_are_disjoint_cover_all_and_are_large_enough(skew: float | None, parts: int) -> None:
    cuts = partition(LABELS, parts, skew=skew, seed=3)
    assert np.array_equal(np.sort(np.concatenate(cuts)), np.arange(1500))
    assert min(map(len, cuts)) >= min(PART_SAMPLES_MIN, 1500 // (2 * parts))
    assert all(np.all(np.diff(cut) > 0) for cut in cuts)


def test_same_seed_same_parts() -> None:
    one, two = (partition(LABELS, 5, skew=0.3, seed=1) for _ in range(2))
    other = partition(LABELS, 5, skew=0.3, seed=2)
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def imbalance(skew: float | None) -> float:
    """Mean share of the commonest label of a part: 0.1 for even parts."""
    cuts = partition(LABELS, 5, skew=skew, seed=1)
    return float(np.mean([np.bincount(LABELS[cut]).max() / len(cut) for cut in cuts]))


def test_smaller_alpha_skews_more() -> None:
    assert imbalance(0.1) > imbalance(1.0) > imbalance(100.0)
    assert imbalance(None) < 0.2


def test_few_samples_are_still_shared_out() -> None:
    cuts = partition(np.zeros(7, np.int64), 5, skew=0.01, seed=1)
    assert np.array_equal(np.sort(np.concatenate(cuts)), np.arange(7))


def test_split_is_stratified_disjoint_and_fixed() -> None:
    train, test = split_indices(LABELS, "train"), split_indices(LABELS, "test")
    assert np.array_equal(np.sort(np.concatenate([train, test])), np.arange(1500))
    for label in range(10):
        total = int((label == LABELS).sum())
        assert int((LABELS[train] == label).sum()) == round(0.8 * total)
    assert np.array_equal(train, split_indices(LABELS.copy(), "train"))
