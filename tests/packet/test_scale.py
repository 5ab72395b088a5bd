"""Scaling: prefixes that nest, a scale of 1 that changes nothing, refusals that say why."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    PLAN_DOMAIN,
    Axes,
    Cut,
    Packet,
    Plan,
    Scale,
    Tensor,
    commit,
    encode_plan,
    scale,
    seal,
    wrap_object,
)
from tests.packet.keys import HashSigner

WIDTHS = st.fractions(Fraction(1, 40), 1, max_denominator=40)
AXES = Axes.of(
    {
        "tensors": {
            "*.qkv": [[0, 4, 3], [1, 4]],
            "*.fc": [[0, 6], [1, 4]],
            "head.fc": [[1, 4]],
        },
        "blocks": ["b0", "b1", "b2"],
    }
)


def model() -> dict[str, dict[str, Any]]:
    """Width 8 = 4 heads of 2; 12 hidden units; every value tells where it lay."""
    layers: dict[str, dict[str, Any]] = {}
    for block in ("b0", "b1", "b2"):
        qkv = np.arange(24 * 8, dtype="<f4").reshape(24, 8)
        fc = np.arange(12 * 8, dtype="<i8").reshape(12, 8)
        layers[block] = {f"{block}.qkv": qkv, f"{block}.fc": fc}
    layers["head"] = {
        "head.fc": Tensor("bf16", (5, 8), np.arange(40, dtype="<u2").view("u1").data),
        "head.bias": np.arange(5, dtype="<f4"),
    }
    return layers


def test_a_scale_of_one_is_the_same_to_the_bit() -> None:
    """Rules: P-403"""
    layers = {
        layer: {name: Tensor.of(value) for name, value in tensors.items()}
        for layer, tensors in model().items()
    }
    assert scale(layers, Scale(), AXES) == layers
    assert scale(layers, Scale(), Axes()) == layers
    assert scale(layers, Scale(1, depth=3, bits=32), AXES) == layers


@given(width=WIDTHS)
def test_the_first_units_of_every_run_are_kept(width: Fraction) -> None:
    """Against plain indices. Rules: P-400, P-401"""
    made = scale(model(), Scale(width), AXES)
    heads = [u for u in range(4) if u < width * 4]  # the first ceil(4 x width)
    wide = [2 * u + e for u in heads for e in (0, 1)]
    rows = [8 * part + i for part in range(3) for i in wide]
    hidden = [2 * u + e for u in range(6) if u < width * 6 for e in (0, 1)]
    source = model()
    for block in ("b0", "b1", "b2"):
        qkv = source[block][f"{block}.qkv"][np.ix_(rows, wide)]
        fc = source[block][f"{block}.fc"][np.ix_(hidden, wide)]
        assert np.array_equal(made[block][f"{block}.qkv"].array(), qkv)
        assert np.array_equal(made[block][f"{block}.fc"].array(), fc)
    head = made["head"]["head.fc"]
    assert head.dtype == "bf16"
    assert np.array_equal(head.array(), np.arange(40, dtype="<u2").reshape(5, 8)[:, wide])
    assert made["head"]["head.bias"].shape == (5,)


@given(one=WIDTHS, other=WIDTHS)
def test_a_smaller_width_is_a_prefix_of_a_larger_one(one: Fraction, other: Fraction) -> None:
    """Rules: P-401"""
    axes = Axes({"w": (Cut(0, 13),)})
    layers = {"l": {"w": np.arange(26, dtype="<f4")}}
    small, large = (
        scale(layers, Scale(width), axes)["l"]["w"].data for width in sorted((one, other))
    )
    assert large[: len(small)] == small


def test_depth_keeps_the_first_blocks_and_all_that_is_no_block() -> None:
    """Rules: P-402"""
    made = scale(model(), Scale(depth=2), AXES)
    assert list(made) == ["b0", "b1", "head"]


@pytest.mark.parametrize(("bits", "way"), [(16, "bf16"), (8, "int8"), (4, "int4")])
def test_bits_commit_what_is_left(bits: int, way: str) -> None:
    """Rules: P-403"""
    layers = {"l": {"w": np.linspace(-1, 1, 200, dtype="<f4"), "steps": np.array(3, "<i8")}}
    axes = Axes({"w": (Cut(0, 200),)})
    made = scale(layers, Scale(0.5, bits=bits), axes)
    expected = commit({"w": layers["l"]["w"][:100]}, way).tensors["w"]
    assert made["l"]["w"].data == expected.data
    assert made["l"]["steps"].array() == 3


def test_a_packet_scales_as_its_layers_do() -> None:
    packet = Packet.from_tensors(model())
    assert scale(packet, Scale(0.5), AXES) == scale(model(), Scale(0.5), AXES)


def test_an_exact_name_goes_before_a_star() -> None:
    """Rules: P-400"""
    axes = Axes({"*.w": (Cut(0, 4),), "a.w": (Cut(0, 2),), "a.*": (Cut(0, 1),)})
    assert axes.cuts("a.w") == (Cut(0, 2),)
    assert axes.cuts("b.w") == (Cut(0, 4),)
    assert axes.cuts("b.c.w") == ()
    with pytest.raises(ValueError, match=r"both fit tensor 'a.w'"):
        Axes({"*.w": (), "a.*": ()}).cuts("a.w")


def test_axes_survive_their_plain_form() -> None:
    assert Axes.of(AXES.plain()) == AXES


@pytest.mark.parametrize(
    ("by", "axes", "message"),
    [
        (Scale(bits=7), AXES, "bits 7: weights can have 0, 4, 8, 16, 32"),
        (Scale(depth=4), AXES, "depth 4: the axes name 3 blocks"),
        (Scale(0.5), Axes(blocks=("b0",)), "the axes name no tensor of this model"),
        (Scale(0.5), Axes({"b0.fc": (Cut(2, 4),)}), "tensor 'b0.fc' has no axis 2"),
        (
            Scale(0.5),
            Axes({"b0.fc": (Cut(0, 5),)}),
            "axis 0 has 12 entries, not a multiple of 5 units x 1 parts",
        ),
    ],
)
def test_what_cannot_be_is_refused(by: Scale, axes: Axes, message: str) -> None:
    """Rules: P-404"""
    with pytest.raises(ValueError, match=message):
        scale(model(), by, axes)


@pytest.mark.parametrize("width", [0, -0.5, 1.01, float("nan"), float("inf"), 1e-9])
def test_a_width_that_is_none_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="is no scale"):
        Scale(width)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        [],
        {"tensor": {}},
        {"tensors": []},
        {"tensors": {1: []}},
        {"tensors": {"w": 3}},
        {"tensors": {"w": [3]}},
        {"tensors": {"w": [[0]]}},
        {"tensors": {"w": [[0, 1, 1, 1]]}},
        {"tensors": {"w": [[0, 0]]}},
        {"tensors": {"w": [[16, 1]]}},
        {"tensors": {"w": [[-1, 1]]}},
        {"tensors": {"w": [[True, 1]]}},
        {"tensors": {"w": [["0", 1]]}},
        {"tensors": {"w": [[0, 1.0]]}},
        {"tensors": {"w": [[0, 2**40, 2]]}},
        {"tensors": {"w": [[0, 2], [0, 4]]}},
        {"blocks": "b"},
        {"blocks": [1]},
        {"blocks": ["b", "b"]},
    ],
)
def test_axes_from_a_stranger_are_checked(plain: object) -> None:
    """Rules: P-400"""
    with pytest.raises(ValueError, match=r"axes|cut"):
        Axes.of(plain)


def test_half_of_a_transformer_is_a_transformer_of_half_the_width() -> None:
    """Rules: P-401, P-402"""
    torch = pytest.importorskip("torch")
    from mfd.learn import layers, zoo

    full = zoo.init({"zoo": "transformer", "width": 32, "heads": 4, "depth": 3, "length": 8}, 0)
    small = zoo.init({"zoo": "transformer", "width": 16, "heads": 2, "depth": 2, "length": 8}, 0)
    wide = [[0, 4], [1, 4]]
    axes = Axes.of(
        {
            "tensors": {
                "embedding.*.weight": [[1, 4]],
                "*.qkv.weight": [[0, 4, 3], [1, 4]],
                "*.qkv.bias": [[0, 4, 3]],
                "*.out.weight": wide,
                "*.mlp.*.weight": wide,
                **{f"*.{n}.bias": [[0, 4]] for n in ("out", "norm1", "norm2")},
                **{f"*.{n}.weight": [[0, 4]] for n in ("norm1", "norm2")},
                "*.mlp.*.bias": [[0, 4]],
                "head.0.weight": [[0, 4]],
                "head.0.bias": [[0, 4]],
                "head.1.weight": [[1, 4]],
            },
            "blocks": ["block1", "block2", "block3"],
        }
    )
    state = full.state_dict()
    source = {
        layer.name: {key: state[key] for key in layer.tensors} for layer in layers.find_layers(full)
    }
    made = scale(source, Scale(0.5, depth=2), axes)
    small.load_state_dict({n: t.torch() for found in made.values() for n, t in found.items()})
    tokens = torch.arange(8)[None]
    assert torch.isfinite(small(tokens)).all()
    found = small.state_dict()["block2.out.weight"]
    assert torch.equal(found, state["block2.out.weight"][:16, :16])


def test_axes_come_from_the_plan_that_travels_along() -> None:
    """Rules: P-400, P-404"""
    layers = {"a": {"w": np.ones((8, 3), "<f4")}}
    recipe = {"axes": {"tensors": {"w": [[0, 8]]}, "blocks": []}}
    signer = HashSigner("author")

    def with_recipe(recipe: dict[str, Any]) -> Packet:
        plan = Plan(recipe=recipe, names=("x",), home=bytes(32))
        record = wrap_object(seal(PLAN_DOMAIN, encode_plan(plan), signer))
        packet = Packet.from_tensors(layers, plan=record.digest)
        return Packet.of(packet.manifest, [*packet.objects.values(), record])

    half = Scale(width=0.5)
    assert scale(with_recipe(recipe), half)["a"]["w"].shape == (4, 3)
    with pytest.raises(ValueError, match="names none"):
        scale(with_recipe({}), half)
    with pytest.raises(ValueError, match="does not carry the plan"):
        scale(Packet.from_tensors(layers), half)
