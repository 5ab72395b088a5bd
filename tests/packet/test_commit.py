"""Committing with loss, against exact fractions and against its own promises."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfd.packet import Committed, Tensor, Way, commit
from mfd.packet.floats import widen
from tests.packet import exact

WAYS = sorted(Way)
SIZES = st.integers(0, 140)  # none, one, a part of a block, several blocks
SCALES = st.sampled_from([1.0, 1e-3, 1e-6, 1.6e-38, 3e-41, 1e30, 2.0**127])
NARROW = {"f16": "<f2", "f32": "<f4"}


def floats(seed: int, count: int, scale: float) -> np.ndarray[Any, Any]:
    """Normal numbers with zeros of both signs, powers of two, ties and outliers among them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(count) * scale
    odd = rng.random(count)
    values[odd < 0.08] = 0.0
    values[(odd >= 0.08) & (odd < 0.12)] = -0.0
    near = (odd >= 0.12) & (odd < 0.3)
    values[near] = np.round(values[near] / scale * 8) * scale / 8
    values[(odd >= 0.3) & (odd < 0.32)] *= 60
    top = float(np.finfo("<f4").max)
    return np.clip(values, -top, top).astype("<f4")


@st.composite
def tensors(draw: st.DrawFn, dtype: str = "f32") -> Tensor:
    seed, count, scale = draw(st.integers(0, 2**32)), draw(SIZES), draw(SCALES)
    values = floats(seed, count, scale)
    if draw(st.booleans()) and count:  # any bits at all, but for inf and NaN
        bits = draw(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=9))
        wild = np.array(bits, "<u4").view("<f4")
        values[: len(wild)] = np.where(np.isfinite(wild), wild, 1)[:count]
    if dtype == "bf16":
        return Tensor(dtype, (count,), (values.view("<u4") >> 16).astype("<u2").view("u1").data)
    if dtype == "f16":
        values = np.clip(values, -65504, 65504).astype("<f2")
    return Tensor.of(values)


def plain(tensor: Tensor) -> np.ndarray[Any, Any]:
    """As f64, exactly."""
    return widen(tensor.array(), tensor.dtype).astype("<f8")


def attempt(tensor: Tensor, way: str, **more: Any) -> Committed | None:
    """None where the way refuses: so must the second committer."""
    try:
        return commit({"w": tensor}, way, **more)
    except ValueError:
        return None


CASES = [
    *((way, "f32") for way in WAYS),
    *((way, dtype) for way in ("int8", "int4") for dtype in ("f16", "bf16")),
]


@pytest.mark.parametrize(("way", "dtype"), CASES)
@settings(max_examples=40)  # fractions are slow
@given(data=st.data())
def test_agrees_with_exact_fractions_and_keeps_its_promises(
    way: str, dtype: str, data: st.DataObject
) -> None:
    """Rules: P-300, P-301, P-302, P-303, P-304, P-305, P-306, P-307, P-308, P-309"""
    tensor = data.draw(tensors(dtype))
    count = tensor.shape[0]
    more: dict[str, Any] = {"one_in": data.draw(st.sampled_from([1, 3, 64]))}
    inputs = {"one_in": more["one_in"]}
    if Way(way).needs_base:
        step = floats(data.draw(st.integers(0, 2**32)), count, data.draw(SCALES))
        base = tensor.array() if data.draw(st.booleans()) else np.zeros(count, "<f4")
        with np.errstate(all="ignore"):
            base = base + step
        base[~np.isfinite(base)] = 0
        more["base"], inputs["base"] = {"w": base}, base.tobytes()
    left = None
    if data.draw(st.booleans()):
        left = floats(data.draw(st.integers(0, 2**32)), count, data.draw(SCALES) * 1e-4)
        more["residual"], inputs["residual"] = {"w": left}, left.tobytes()
    done = attempt(tensor, way, **more)
    try:
        expected, residual = exact.commit(bytes(tensor.data), dtype, way, **inputs)
    except ArithmeticError:
        assert done is None
        return
    assert done is not None, "only the first committer refuses"
    committed = done.tensors["w"]
    assert bytes(committed.data).hex() == expected.hex()

    found = [exact.Fraction(float(value)) for value in done.residual["w"]]
    if Way(way).needs_base:
        pairs = zip(found, residual, strict=True)
        assert all(abs(a - b) <= abs(b) * exact.pow2(-24) for a, b in pairs)
    else:
        assert found == residual
        wanted = widen(tensor.array(), dtype) + (0 if left is None else left)
        assert np.array_equal(widen(committed.array(), dtype) + done.residual["w"], wanted)

    assert max(map(abs, residual), default=0) <= done.error_bound["w"]
    assert math.isfinite(done.error_bound["w"])

    more.pop("residual", None)
    again = commit({"w": committed}, way, **more)
    assert again.tensors["w"].data == committed.data
    assert not any(again.residual["w"])


@pytest.mark.parametrize("way", ["delta-int8", "delta-int4", "delta-sign"])
@given(seed=st.integers(0, 2**32), apart=st.integers(-30, 4), count=st.integers(1, 130))
def test_small_changes_of_a_large_base_are_idempotent(
    way: str, seed: int, apart: int, count: int
) -> None:
    """Rules: P-304, P-305, P-309"""
    base = floats(seed, count, 1.0)
    with np.errstate(all="ignore"):
        wanted = base + floats(seed + 1, count, 2.0**apart)
    done = commit({"w": wanted}, way, base={"w": base})
    again = commit(done.tensors, way, base={"w": base})
    assert again.tensors["w"].data == done.tensors["w"].data


@pytest.mark.parametrize("way", WAYS)
def test_runs_do_not_show(way: str) -> None:
    """A tensor of more than one run gives what its blocks give by themselves. Rules: P-302"""
    values = floats(1, 3 * (1 << 15) + 70, 0.02)
    base = floats(2, values.size, 0.02) if Way(way).needs_base else None
    if way == "top-k":  # is of the whole tensor
        return
    whole = commit({"w": values}, way, base=None if base is None else {"w": base})
    for start in (0, (1 << 15) - 64, 1 << 15, 3 << 15):
        part = slice(start, start + 128)
        alone = commit({"w": values[part]}, way, base=None if base is None else {"w": base[part]})
        got = np.frombuffer(whole.tensors["w"].data, "<f4")[part]
        assert got.tobytes() == bytes(alone.tensors["w"].data)


@pytest.mark.parametrize("way", ["int8", "int4"])
def test_codes_and_one_scale_tell_a_block(way: str) -> None:
    """Rules: P-303"""
    levels = 127 if way == "int8" else 7
    values = floats(5, 64 * 50, 0.02)
    done = commit({"w": values}, way).tensors["w"].array().reshape(-1, 64)
    scales = np.abs(done).max(axis=1, keepdims=True) / np.float32(levels)
    codes = done / scales
    assert np.array_equal(codes, np.rint(codes))
    assert np.abs(codes).max() == levels
    assert not np.signbit(done[done == 0]).any()
    assert not (scales.view("<u4") & 0xFFFF).any()  # the scale is a bf16


def test_ties_go_to_even() -> None:
    """Rules: P-300, P-302, P-303"""
    ties = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11], "<f4")
    assert commit({"w": ties[:2]}, "bf16").tensors["w"].array().tolist() == [1, 1 + 2**-6]
    assert commit({"w": ties[2:]}, "fp16").tensors["w"].array().tolist() == [1, 1 + 2**-9]
    for way, levels, bits in (("int8", 127, 8), ("int4", 7, 5)):
        for odd, even in ((1, 0), (3, 4)):
            peak = np.float32(levels * (1 + odd * 2.0**-bits))
            got = commit({"w": peak}, way).tensors["w"].array()
            assert got == levels * (1 + even * 2.0**-bits)
    steps = commit({"w": np.array([7, 0.5, 1.5, -2.5], "<f4")}, "int4").tensors["w"].array()
    assert steps.tolist() == [7, 0, 2, -2]


def test_top_k_takes_the_first_of_equals_and_no_zero() -> None:
    """Rules: P-306"""
    base = np.array([0, 0, 0, 5, 1, 0, 0, 0, 0], "<f4")
    wanted = base + np.array([0, 0, 2, 0, -2, 2, 2, 0, 1], "<f4")
    made = commit({"w": wanted}, "top-k", base={"w": base}, one_in=3)
    assert made.tensors["w"].array().tolist() == [0, 0, 2, 5, -1, 2, 0, 0, 0]
    assert made.residual["w"].tolist() == [0, 0, 0, 0, 0, 0, 2, 0, 1]
    assert 2 <= made.error_bound["w"] < 2.000001
    for one_in in (1, 2):
        zeros = {"w": -np.zeros(3, "<f4")}
        made = commit(zeros, "top-k", base={"w": base[:3]}, one_in=one_in)
        assert not np.signbit(made.tensors["w"].array()).any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(way: str, bad: float) -> None:
    """Rules: P-301"""
    good, poor = np.ones(200, "<f4"), np.ones(200, "<f4")
    poor[150] = bad
    delta = Way(way).needs_base
    with pytest.raises(ValueError, match="'w' cannot be committed"):
        commit({"w": poor}, way, base={"w": good} if delta else None)
    with pytest.raises(ValueError, match="'w' cannot be committed"):
        commit({"w": good}, way, base={"w": good} if delta else None, residual={"w": poor})
    if delta:
        with pytest.raises(ValueError, match="'w' cannot be committed"):
            commit({"w": good}, way, base={"w": poor})


def test_what_does_not_fit_is_refused() -> None:
    """Rules: P-301"""
    top = np.full(3, np.finfo("<f4").max, "<f4")
    for way, value in (("fp16", np.float32(65520)), ("bf16", top)):
        with pytest.raises(ValueError, match="too large"):
            commit({"w": value}, way)
    assert commit({"w": np.float32(65519)}, "fp16").tensors["w"].array() == 65504
    with pytest.raises(ValueError, match="too large for f16"):
        commit({"w": np.full(2, 65504, "<f2")}, "int8")  # 64 x 1024
    for way in ("delta-int8", "delta-sign", "top-k"):
        with pytest.raises(ValueError, match="not finite"):
            commit({"w": top}, way, base={"w": -top})


def test_other_types_travel_as_they_are() -> None:
    """Rules: P-300"""
    others = {
        "steps": np.array(7, "<i8"),
        "wide": np.array([0.1, 0.2]),
        "mask": np.array([True, False]),
        "half": np.array([1e-7, 3.0], "<f2"),
    }
    done = commit(others, "bf16")
    assert {n: t.data for n, t in done.tensors.items()} == {
        n: Tensor.of(v).data for n, v in others.items()
    }
    assert done.residual == {}
    assert done.error_bound == {}
    assert commit(others, "int4").residual.keys() == {"half"}


def test_shapes_stay() -> None:
    values = {"none": np.zeros((0, 4), "<f4"), "one": np.float32(1.7), "cube": np.ones((2, 3, 4))}
    values["cube"] = values["cube"].astype("<f4")
    for way in WAYS:
        done = commit(values, way, base=values if Way(way).needs_base else None)
        for name, value in values.items():
            assert done.tensors[name].shape == np.shape(value)
            assert done.residual[name].shape == np.shape(value)
    assert done.error_bound["none"] == 0


def test_error_feedback_delivers_what_was_held_back() -> None:
    """The sum of what was committed follows the sum of what was wanted. Rules: P-300, P-306"""
    rng = np.random.default_rng(3)
    held, wanted = np.zeros(640, "<f4"), np.zeros(640)
    residual = None
    for _ in range(30):
        step = rng.standard_normal(640).astype("<f4")
        wanted += step
        done = commit({"w": held + step}, "top-k", base={"w": held}, residual=residual, one_in=8)
        held, residual = done.tensors["w"].array(), done.residual
    assert residual is not None
    assert np.abs(held + residual["w"] - wanted).max() < 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"how": "int3"}, "there is no way 'int3'"),
        ({"how": "int8", "base": {}}, "int8 takes no base"),
        ({"how": "top-k"}, "top-k needs a base"),
        ({"how": "top-k", "base": {"w": np.ones(2, "<f4")}, "one_in": 0}, "above 0"),
        ({"how": "top-k", "base": {}}, "the base has no tensor 'w'"),
        ({"how": "delta-int8", "base": {"w": np.ones(3, "<f4")}}, r"f32\[2\] but f32\[3\]"),
        ({"how": "int8", "residual": {"v": np.ones(2, "<f4")}}, "no tensor of that name"),
        ({"how": "int8", "residual": {"w": np.ones(2)}}, "float64"),
    ],
)
def test_misuse_gets_a_sentence(arguments: dict[str, Any], message: str) -> None:
    """Rules: P-301"""
    with pytest.raises(ValueError, match=message):
        commit({"w": np.ones(2, "<f4")}, **arguments)


def test_a_thread_that_flushes_subnormals_is_refused() -> None:
    torch = pytest.importorskip("torch")
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor always keeps subnormal numbers")
    try:
        with pytest.raises(RuntimeError, match="set_flush_denormal"):
            commit({"w": np.ones(2, "<f4")}, "int8")
    finally:
        torch.set_flush_denormal(False)


FOLDER = Path(__file__).parents[2] / "spec" / "vectors"
ANSWERS = {p.stem: json.loads(p.read_text()) for p in (FOLDER / "commit").glob("*.json")}


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_known_answers(name: str) -> None:
    """Rules: P-300, P-301, P-303, P-304, P-305, P-306"""
    known = ANSWERS[name]
    raw = {key: bytes.fromhex(known[key]) for key in ("tensor", "base", "residual") if key in known}
    count = len(raw["tensor"]) // (4 if known["dtype"] == "f32" else 2)
    tensor = Tensor(known["dtype"], (count,), memoryview(raw.pop("tensor")))
    more: dict[str, Any] = {key: {"w": np.frombuffer(data, "<f4")} for key, data in raw.items()}
    inputs: dict[str, Any] = {**raw}
    if "one_in" in known:
        more["one_in"] = inputs["one_in"] = known["one_in"]
    if "refused" in known:
        with pytest.raises(ValueError, match="cannot be committed"):
            commit({"w": tensor}, known["way"], **more)
        with pytest.raises(ArithmeticError):
            exact.commit(bytes(tensor.data), tensor.dtype, known["way"], **inputs)
        return
    done = commit({"w": tensor}, known["way"], **more)
    assert done.tensors["w"].data.hex() == known["committed"]
    assert done.residual["w"].tobytes().hex() == known["left"]
    again, residual = exact.commit(bytes(tensor.data), tensor.dtype, known["way"], **inputs)
    assert again.hex() == known["committed"]
    left = np.frombuffer(bytes.fromhex(known["left"]), "<f4")
    assert [exact.Fraction(float(v)) for v in left] == [exact.rounded(r) for r in residual]


def test_the_writer_gives_these_answers_still() -> None:
    spec = importlib.util.spec_from_file_location("make_commit", FOLDER / "make_commit.py")
    assert spec is not None
    assert spec.loader is not None
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    assert dict(make.answers()) == ANSWERS
