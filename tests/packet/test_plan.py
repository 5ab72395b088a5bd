from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import PacketError, Plan, decode_plan, encode_plan
from tests.packet.values import plans

PLAIN = Plan(recipe={"zoo": "mlp"}, names=("digits/train",), home=b"h" * 32)


@given(plans())
def test_round_trip(plan: Plan) -> None:
    """Rules: P-30, P-31"""
    assert decode_plan(encode_plan(plan)) == plan


def test_settings_in_any_order_are_one_plan() -> None:
    one = replace(PLAIN, recipe={"a": {"x": 1, "y": 2}, "b": 0}, learn={"lr": 0.1, "batch": 8})
    other = replace(PLAIN, recipe={"b": 0, "a": {"y": 2, "x": 1}}, learn={"batch": 8, "lr": 0.1})
    assert encode_plan(one) == encode_plan(other)


@pytest.mark.parametrize(
    "changes",
    [
        {"recipe": {"a": float("nan")}},
        {"recipe": {"a": b"bytes"}},
        {"recipe": {"a": 1 << 63}},
        {"recipe": {"a": [[[[[[[[1]]]]]]]]}},
        {"names": ()},
        {"names": ("a", "a")},
        {"names": ("",)},
        {"home": b""},
        {"mode": "swim"},
        {"task": ""},
        {"verify": ("x" * 513,)},
        {"laps": 0},
        {"laps": 10_001},
        {"laps": 2.0},
        {"order": "none"},
        {"layers_per_stop": 0, "order": "boustrophedon"},
        {"layers_per_stop": 257},
        {"first": 1},
        {"body": (2, 2)},
        {"body": (0, 257)},
        {"body": (True, 2)},
        {"body": (0, 1, 2)},
        {"head": 1},
        {"full_laps": -1},
        {"min_holders": 0},
        {"seed": -1},
        {"learn": {"a": [1]}},
        {"learn": {"a": float("inf")}},
        {"learn": {str(i): i for i in range(65)}},
        {"recipe": {str(i): "x" * 4000 for i in range(20)}},
        {"extra": {28: 1}},
    ],
)
def test_the_writer_refuses_what_no_reader_takes(changes: dict[str, object]) -> None:
    """Rules: P-30, P-31"""
    with pytest.raises(ValueError, match=r"cannot travel|integer|critical|deeper"):
        encode_plan(replace(PLAIN, **changes))  # type: ignore[arg-type]


def test_what_messagepack_cannot_carry_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        encode_plan(replace(PLAIN, recipe={"a": object()}))


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error_of_the_list(body: bytes) -> None:
    """Rules: P-70"""
    with pytest.raises(PacketError):
        decode_plan(body)
