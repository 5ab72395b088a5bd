"""Merging, against a mean that is taken one coordinate at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import Axes, Packet, Scale, Tensor, merge, scale

AXES = Axes.of({"tensors": {"w": [[0, 2, 3], [1, 5]], "v": [[0, 5]]}, "blocks": ["one", "two"]})
DTYPES = ["<f2", "<f4", "<f8"]


def layers(seed: int, dtype: str = "<f4") -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return {
        "one": {
            "w": rng.standard_normal((12, 5)).astype(dtype),
            "steps": np.array([seed % 100, 1], "<i8"),
        },
        "two": {"v": rng.standard_normal(10).astype(dtype), "bias": np.float32(seed % 7)},
    }


def kept(width: tuple[int, int], units: int, parts: int, extent: int) -> list[int]:
    """Indices of the full axis that a part of this width holds, from the specification."""
    each = extent // (units * parts)
    first = -(-units * width[0] // width[1])
    return [
        (p * units + u) * each + e for p in range(parts) for u in range(first) for e in range(each)
    ]


def plain_merge(
    full: np.ndarray[Any, Any], parts: list[tuple[np.ndarray[Any, Any], float, list[list[int]]]]
) -> np.ndarray[Any, Any]:
    """The rule, one coordinate after the other, in Python's own floats of 64 bits."""
    out = full.copy()
    for place in np.ndindex(full.shape):
        found = []
        for values, weight, indices in parts:
            where = [axis.index(at) for axis, at in zip(indices, place, strict=True) if at in axis]
            if len(where) == full.ndim:
                found.append((float(values[tuple(where)]), weight))
        if found:
            total = sum(weight for _, weight in found)
            mean = -0.0
            for value, weight in found:
                mean += weight / total * value
            out[place] = mean if full.dtype == "<f8" else np.float32(mean).astype(full.dtype)
    return out


WIDTHS = st.sampled_from([(1, 1), (1, 2), (1, 5), (3, 5), (4, 5)])
PARTS = st.lists(
    st.tuples(st.integers(0, 10**6), WIDTHS, st.floats(1e-3, 1e3), st.integers(0, 2)),
    min_size=1,
    max_size=4,
)


@given(parts=PARTS, dtype=st.sampled_from(DTYPES))
def test_agrees_with_one_coordinate_at_a_time(
    parts: list[tuple[int, tuple[int, int], float, int]], dtype: str
) -> None:
    """Rules: P-405"""
    full = layers(7, dtype)
    scaled = []
    for seed, width, weight, depth in parts:
        by = Scale(width[0] / width[1], depth=depth)
        scaled.append((scale(layers(seed, dtype), by, AXES), weight))
    made = merge(full, scaled, AXES)
    w = [
        (part["one"]["w"].array(), weight, [kept(width, 2, 3, 12), kept(width, 5, 1, 5)])
        for (part, weight), (_, width, _, _) in zip(scaled, parts, strict=True)
    ]
    v = [
        (part["two"]["v"].array(), weight, [kept(width, 5, 1, 10)])
        for (part, weight), (_, width, _, depth) in zip(scaled, parts, strict=True)
        if depth != 1
    ]
    assert made["one"]["w"].array().tobytes() == plain_merge(full["one"]["w"], w).tobytes()
    assert made["two"]["v"].array().tobytes() == plain_merge(full["two"]["v"], v).tobytes()


@given(weight=st.floats(1e-300, 1e300), bits=st.lists(st.integers(0, 2**32 - 1), min_size=1))
def test_one_part_alone_gives_its_own_bits(weight: float, bits: list[int]) -> None:
    """So do several equal ones of 32 bits or fewer. Rules: P-405"""
    values = np.array(bits, "<u4").view("<f4")
    values[~np.isfinite(values)] = -0.0
    full = {"l": {"w": np.zeros_like(values)}}
    part = {"l": {"w": values}}
    assert merge(full, [(part, weight)])["l"]["w"].data == Tensor.of(values).data
    thrice = merge(full, [(part, weight), (part, 0.3), (part, weight / 7)])
    assert thrice["l"]["w"].data == Tensor.of(values).data
    wide = {"l": {"w": values.astype("<f8") * 1e-300}}
    assert merge(wide, [(wide, weight)])["l"]["w"].data == Tensor.of(wide["l"]["w"]).data


def test_bf16_is_averaged_as_numbers() -> None:
    """Rules: P-405"""

    def of(*whole: int) -> dict[str, dict[str, Tensor]]:
        return {"l": {"w": Tensor("bf16", (2,), np.array(whole, "<u2").view("u1").data)}}

    made = merge(of(0, 0), [(of(0x3F80, 0x8000), 1), (of(0x4000, 0x8000), 3)])
    assert list(made["l"]["w"].array()) == [0x3FE0, 0x8000]  # 1.75, -0


def test_what_nobody_holds_keeps_its_bits() -> None:
    """Even where they are no number. Rules: P-405"""
    values = np.array([1, 2, np.nan, -0.0], "<f4")
    values.view("<u4")[2] = 0x7FABCDEF
    axes = Axes.of({"tensors": {"w": [[0, 4]]}})
    full = {"l": {"w": values}, "m": {"u": values}}
    made = merge(full, [({"l": {"w": np.full(2, 5, "<f4")}}, 1)], axes)
    assert made["l"]["w"].array()[:2].tolist() == [5, 5]
    assert made["l"]["w"].data[8:] == Tensor.of(values).data[8:]
    assert made["m"]["u"].data == Tensor.of(values).data


def test_runs_do_not_show() -> None:
    """A tensor of several runs gives what its rows give by themselves. Rules: P-405"""
    rng = np.random.default_rng(0)
    full, one, two = (rng.standard_normal((50, 1000)).astype("<f4") for _ in range(3))
    axes = Axes.of({"tensors": {"w": [[0, 5, 2], [1, 10]]}})

    def cut(values: np.ndarray[Any, Any]) -> dict[str, dict[str, Tensor]]:
        return scale({"l": {"w": values}}, Scale(0.6), axes)

    made = merge({"l": {"w": full}}, [(cut(one), 2), ({"l": {"w": two}}, 3)], axes)
    rows, columns = kept((6, 10), 5, 2, 50), kept((6, 10), 10, 1, 1000)
    expected = two.copy()
    both = np.ix_(rows, columns)
    expected[both] = 2 / 5 * one[both].astype("<f8") + 3 / 5 * two[both].astype("<f8")
    assert np.array_equal(made["l"]["w"].array(), expected)


def test_buffers_come_from_the_heaviest_part() -> None:
    """Rules: P-406"""
    made = merge(layers(1), [(layers(2), 1), (layers(3), 5), (layers(4), 5)], buffers={"bias"})
    assert made["one"]["steps"].array().tolist() == [3, 1]
    assert made["two"]["bias"].array() == 3
    assert merge(layers(1), [(layers(2), 3), (layers(3), 1)])["two"]["bias"].array() == 2.25


def test_a_narrow_heaviest_part_leaves_the_rest_of_a_buffer() -> None:
    """Rules: P-406"""
    axes = Axes.of({"tensors": {"n": [[0, 2, 2]]}})
    full, part = np.arange(8), np.array([10, 11, 12, 13])
    made = merge({"l": {"n": full}}, [({"l": {"n": part}}, 1)], axes)
    assert made["l"]["n"].array().tolist() == [10, 11, 2, 3, 12, 13, 6, 7]


def test_packets_merge() -> None:
    made = merge(Packet.from_tensors(layers(1)), [(Packet.from_tensors(layers(2)), 4)])
    assert made["one"]["w"].data == Tensor.of(layers(2)["one"]["w"]).data


def test_nothing_to_merge_changes_nothing() -> None:
    assert merge(layers(1), [])["one"]["w"].data == Tensor.of(layers(1)["one"]["w"]).data


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"three": {}}, "part 0 has a layer 'three'"),
        ({"one": {"u": np.zeros(1)}}, "part 0 has a tensor 'u'"),
        ({"one": {"w": np.zeros((12, 5))}}, r"is f64\[12, 5\] in part 0"),
        ({"one": {"w": np.zeros((6, 6), "<f4")}}, "which the axes do not make"),
        ({"one": {"w": np.zeros((6, 0), "<f4")}}, "which the axes do not make"),
        ({"one": {"w": np.zeros((5, 5), "<f4")}}, "which the axes do not make"),
        ({"one": {"w": np.zeros((3, 5), "<f4")}}, "which the axes do not make"),
        ({"one": {"w": np.zeros(60, "<f4")}}, "which the axes do not make"),
        ({"two": {"bias": np.zeros(1, "<f4")}}, "which the axes do not make"),
        ({"one": {"w": np.full((12, 5), np.nan, "<f4")}}, "'w' cannot be merged"),
    ],
)
def test_parts_that_do_not_fit_are_refused(part: Any, message: str) -> None:
    """Rules: P-405, P-407"""
    with pytest.raises(ValueError, match=message):
        merge(layers(1), [(part, 1)], AXES)


@pytest.mark.parametrize("weights", [[0.0], [-1.0], [float("nan")], [float("inf")], [1e308, 1e308]])
def test_weights_are_above_zero_and_finite(weights: list[float]) -> None:
    """Rules: P-407"""
    with pytest.raises(ValueError, match="weigh"):
        merge(layers(1), [(layers(1), weight) for weight in weights])
