from __future__ import annotations

import numpy as np
import pytest

from mfd.learn.partition import (
    PART_SAMPLES_MIN,
    Cut,
    partition,
    partition_groups,
    split_indices,
)

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


@pytest.mark.parametrize(("parts", "shard"), [(5, 2), (10, 1), (7, 3), (4, 99)])
def test_shards_have_so_many_labels_and_cover_all(parts: int, shard: int) -> None:
    cuts = partition(LABELS, parts, shard=shard, seed=3)
    assert np.array_equal(np.sort(np.concatenate(cuts)), np.arange(1500))
    assert {len(np.unique(LABELS[cut])) for cut in cuts} == {min(shard, 10)}
    holders = np.sum([np.isin(np.arange(10), LABELS[cut]) for cut in cuts], axis=0)
    assert holders.max() - holders.min() <= 1, "labels have about as many holders"
    again = partition(LABELS, parts, shard=shard, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(cuts, again, strict=True))


def test_too_few_parts_for_all_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 parts of 2 label"):
        partition(LABELS, 3, shard=2)
    with pytest.raises(ValueError, match="label 0 has 3 sample"):
        partition(np.zeros(3, np.int64), 4, shard=1)


def test_quantity_skews_sizes_and_not_labels() -> None:
    cuts = partition(LABELS, 5, quantity=0.4, seed=2)
    assert np.array_equal(np.sort(np.concatenate(cuts)), np.arange(1500))
    sizes = sorted(map(len, cuts))
    assert sizes[0] >= PART_SAMPLES_MIN
    assert sizes[-1] > 4 * sizes[0]
    largest = max(cuts, key=len)
    assert np.bincount(LABELS[largest]).max() / len(largest) < 0.2
    even = partition(LABELS, 5, quantity=1e6, seed=2)
    assert max(map(len, even)) - min(map(len, even)) < 30


def test_groups_stay_together_and_parts_are_of_about_one_size() -> None:
    groups = np.repeat(np.arange(30), np.arange(1, 31))
    cuts = partition_groups(groups, 4, seed=1)
    assert np.array_equal(np.sort(np.concatenate(cuts)), np.arange(len(groups)))
    owners = [set(groups[cut].tolist()) for cut in cuts]
    assert sum(map(len, owners)) == 30
    assert max(map(len, cuts)) - min(map(len, cuts)) <= 30
    with pytest.raises(ValueError, match="30 groups cannot be cut into 31 parts"):
        partition_groups(groups, 31)


def test_two_rules_at_once_are_an_error() -> None:
    with pytest.raises(ValueError, match="skew and shard cannot both decide"):
        Cut(skew=0.3, shard=2)
