"""Merging where some versions may be wrong."""

from __future__ import annotations

from math import inf, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet.objects import pack_layer, unpack_layer
from mfd.packet.robust import clipped, distance, middle
from mfd.packet.tensors import Tensor

NUMBERS = st.lists(st.floats(-1e6, 1e6, width=32), min_size=4, max_size=4)


def layer(values: list[float], dtype: str = "<f4", **more: object) -> dict[str, Tensor]:
    arrays = {"w": np.array(values, dtype).reshape(2, -1), **more}
    return unpack_layer(pack_layer(arrays).tobytes())


def values(made: dict[str, Tensor]) -> list[float]:
    return made["w"].array().reshape(-1).tolist()


def test_distance_counts_parameters_alone() -> None:
    """Rules: W-47"""
    own = layer([3, 4, 0, 0], mean=np.ones(2, np.float32), n=np.array(1))
    other = layer([3, 4, 5, 12], mean=np.zeros(2, np.float32), n=np.array(9))
    assert distance(own, other, buffers={"mean"}) == (13.0, 5.0)
    assert distance(own, layer([nan, 0, 0, 0]), buffers={"mean", "n"}) == (inf, 0.0)


def test_what_is_far_is_drawn_near_and_what_is_near_stays() -> None:
    """Rules: W-47"""
    own, far, near = layer([3, 4, 0, 0]), layer([3, 4, 0, 10]), layer([3, 4, 0, 1])
    assert values(clipped(own, far, 0.4)) == [3, 4, 0, 2]  # 0.4 x 5
    assert values(clipped(own, near, 0.4)) == values(near)
    assert values(clipped(own, layer([inf, 0, 0, 0]), 0.4)) == values(own)


def test_the_middle_is_deaf_to_one_liar() -> None:
    """Rules: W-47"""
    honest = [layer([1, 2, 3, 4]), layer([2, 3, 4, 5]), layer([3, 4, 5, 6])]
    liar = layer([1e30, -1e30, 1e30, -1e30])
    assert values(middle([*honest, liar], "trim")) == [2.5, 2.5, 4.5, 4.5]
    assert values(middle([*honest, liar], "median")) == [2.5, 2.5, 4.5, 4.5]
    assert values(middle(honest, "median")) == [2, 3, 4, 5]
    with pytest.raises(ValueError, match="at least three versions, not 2"):
        middle(honest[:2], "median")
    with pytest.raises(ValueError, match="'w' cannot be merged: a value is not finite"):
        middle([*honest, layer([nan, 0, 0, 0])], "trim")


@given(st.lists(NUMBERS, min_size=3, max_size=6), st.sampled_from(["median", "trim"]))
def test_the_middle_lies_between_and_knows_no_order(rows: list[list[float]], rule: str) -> None:
    """Rules: W-46, W-47"""
    made = values(middle([layer(row) for row in rows], rule))
    assert made == values(middle([layer(row) for row in reversed(rows)], rule))
    for column, value in zip(np.array(rows, np.float32).T, made, strict=True):
        assert column.min() <= value <= column.max()


@given(NUMBERS, st.sampled_from(["<f2", "<f4", "<f8"]), st.sampled_from(["median", "trim"]))
def test_equal_layers_stay_what_they_are(row: list[float], dtype: str, rule: str) -> None:
    """Rules: W-46"""
    row = [max(-6e4, min(6e4, value)) for value in row]
    one = layer(row, dtype)
    assert values(middle([one, one, one, one], rule)) == values(one)
    assert values(clipped(one, one, 0.1)) == values(one)
