from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import Fault, PacketError
from mfd.packet.fields import Fields, pack_header, pack_value, unpack_value
from tests.packet.values import PLAIN


@given(PLAIN)
def test_round_trip(value: Any) -> None:
    """Rules: P-10"""
    try:
        body = pack_value({1: value})
    except ValueError:
        return  # nests too deep
    assert unpack_value(body, "test") == {1: value}


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", Fault.MSGPACK),
        (b"\xcc\x01", Fault.MSGPACK),  # 1 in two bytes
        (b"\xca\x00\x00\x00\x00", Fault.MSGPACK),  # 32-bit float
        (b"\xd9\x01a", Fault.MSGPACK),  # long form of a short text
        (b"\xa1\xff", Fault.MSGPACK),  # no UTF-8
        (b"\xa3\xed\xa0\x80", Fault.MSGPACK),  # a lone surrogate
        (b"\xc7\x00\x01", Fault.MSGPACK),  # extension type
        (b"\xd6\xff\x00\x00\x00\x00", Fault.MSGPACK),  # timestamp
        (b"\x82\xa1b\x00\xa1a\x00", Fault.MSGPACK),  # keys descend
        (b"\x82\xa1a\x00\xa1a\x00", Fault.MSGPACK),  # a key twice
        (b"\x82\x01\x00\xa1a\x00", Fault.MSGPACK),  # keys of two types
        (b"\x81\x90\x00", Fault.MSGPACK),  # a list as key
        (b"\x00\x00", Fault.MSGPACK),  # something follows
        (b"\x91" * 8 + b"\x90", Fault.LIMIT),  # nine lists
        (b"\x91" * 3000, Fault.LIMIT),  # deeper than any reader follows
        (msgpack.packb([0] * 1025), Fault.MSGPACK),
        (msgpack.packb("x" * 4097), Fault.MSGPACK),
    ],
)
def test_one_spelling(body: bytes, fault: Fault) -> None:
    """Rules: P-10, P-11"""
    with pytest.raises(PacketError) as caught:
        unpack_value(body, "test")
    assert caught.value.fault is fault


def test_eight_lists_are_not_too_deep() -> None:
    """Rules: P-11"""
    assert pack_value(unpack_value(b"\x91" * 7 + b"\x90", "test")) == b"\x91" * 7 + b"\x90"


def test_lengths_that_lie_take_no_memory() -> None:
    """Rules: P-11"""
    body = b"\xdd\x00\x00\x04\x00" * 1000  # 1,000 lists in lists, each of 1,024 by its own word
    tracemalloc.start()
    with pytest.raises(PacketError):
        unpack_value(body, "test")
    with pytest.raises(PacketError):
        unpack_value(b"\xdd\xff\xff\xff\xff", "test")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


@pytest.mark.parametrize("key", [-1, 65_536, "a", True])
def test_keys_are_16_bit(key: Any) -> None:
    """Rules: P-10"""
    with pytest.raises(PacketError) as caught:
        Fields(msgpack.packb({key: 0}), where="test", limit=99)
    assert caught.value.fault is Fault.MSGPACK


def test_unknown_fields() -> None:
    """Rules: P-12"""
    fields = Fields(pack_header({0: 1}, {3: "kept"}), where="test", limit=99)
    fields.uint(0)
    assert fields.rest() == {3: "kept"}
    fields = Fields(pack_header({0: 1, 4: 2}, {}), where="test", limit=99)
    fields.uint(0)
    with pytest.raises(PacketError) as caught:
        fields.rest()
    assert caught.value.fault is Fault.CRITICAL
    assert "test field 4" in str(caught.value)


@given(st.binary(max_size=60))
def test_any_bytes_are_one_value_or_refused(body: bytes) -> None:
    """Rules: P-10, P-70"""
    try:
        value = unpack_value(body, "test")
    except PacketError:
        return
    assert pack_value(value) == body


@pytest.mark.parametrize("inner", [{1: 2}, {None: 1}, [{b"k": 1}], {"k": {True: 1}}])
def test_inner_keys_are_text(inner: Any) -> None:
    """Rules: P-10"""
    with pytest.raises(PacketError) as caught:
        Fields(msgpack.packb({1: inner}), where="test", limit=100)
    assert caught.value.fault is Fault.MSGPACK


@pytest.mark.parametrize("levels", [9, 600, 5_000])
def test_any_depth_too_deep_is_one_fault(levels: int) -> None:
    """Rules: P-11"""
    body = b"\x81\x01" + b"\x91" * levels + b"\xc0"
    with pytest.raises(PacketError) as caught:
        Fields(body, where="test", limit=10_000)
    assert caught.value.fault is Fault.LIMIT
