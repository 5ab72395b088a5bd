"""Custody messages: signed, bounded, and one typed error for everything else."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.messages import (
    MESSAGE_BYTES_MAX,
    Kind,
    Splitter,
    decode_message,
    encode_message,
)
from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import object_digest
from mfd.sim.keys import SimKey, sim_verify

KEY = SimKey(b"a")
ID, NONCE = bytes(range(32)), bytes(range(16))
BODIES: dict[Kind, tuple] = {
    Kind.OFFER: (ID, [0, ID], 1, b"g", b"p", b"m", b"s", [b"c1", b"c2"], 5),
    Kind.ACCEPT: (ID, NONCE, [ID], [[ID]]),
    Kind.REFUSE: (ID, 1, 0, "no room"),
    Kind.STORED: (ID, NONCE, ID),
    Kind.GRANT: (ID, NONCE, b"certificate"),
    Kind.OWNED: (ID, NONCE, ID),
    Kind.RELEASE: (ID, [b"c1"]),
    Kind.RELEASED: (ID, ID),
    Kind.CANCEL: (ID,),
    Kind.PROGRESS: (ID, 1, 2, 3, [0, ID, 4]),
    Kind.PROGRESS_ACK: (ID, 1),
    Kind.STALE: (ID, []),
    Kind.ERRAND: (NONCE, ID, b"g", b"p", b"m", b"s", ["measure", [], [0.0, 1.0]]),
    Kind.RESULT: (NONCE, {"loss": 1.0}, b"", b""),
    Kind.FAILED: (NONCE, "why"),
    Kind.NOTICE: (ID, "stop", {"lap": 1}),
    Kind.RECLAIM: (ID, ID),
}


def decode(message: bytes, network: str = "n"):
    return decode_message(message, network=network, verify=sim_verify)


def signed(kind: int, body: bytes) -> bytes:
    signature = KEY.sign("mfd.custody.v1", bytes((kind, 1, 0)) + b"n" + body)
    return bytes((kind,)) + KEY.public_key + signature + body


def test_every_kind_has_an_example() -> None:
    assert set(BODIES) == set(Kind)


@pytest.mark.parametrize("kind", list(Kind), ids=lambda k: k.name)
def test_round_trip(kind: Kind) -> None:
    """Rules: C-01"""
    raw = encode_message(kind, BODIES[kind], network="n", signer=KEY)
    assert raw == signed(kind, msgpack.packb(BODIES[kind]))  # the bytes of the specification
    message = decode(raw)
    assert message.kind is kind
    assert message.sender == KEY.public_key
    assert message.body == BODIES[kind]
    assert message.ref == object_digest(raw)


def test_a_signature_holds_for_one_kind_and_one_network() -> None:
    """Rules: C-01"""
    raw = encode_message(Kind.STORED, BODIES[Kind.STORED], network="n", signer=KEY)
    other_kind = bytes((Kind.OWNED,)) + raw[1:]  # OWNED has the same fields
    for wrong, network in ((raw, "m"), (other_kind, "n"), (raw[:-1] + b"\xff", "n")):
        with pytest.raises(PacketError) as caught:
            decode(wrong, network)
        assert caught.value.fault is Fault.SIGNATURE


@pytest.mark.parametrize(
    ("kind", "index", "value"),
    [
        (Kind.OFFER, 1, [0]),
        (Kind.OFFER, 1, []),
        (Kind.OFFER, 1, [1 << 32, ID]),
        (Kind.OFFER, 1, [True, ID]),
        (Kind.OFFER, 2, -1),
        (Kind.OFFER, 2, 1 << 62),
        (Kind.OFFER, 7, [5, ID]),  # looks like an epoch
        (Kind.OFFER, 7, [b"", b"", b""]),
        (Kind.OFFER, 7, [bytes(2_145)]),
        (Kind.ACCEPT, 0, ID[:31]),
        (Kind.ACCEPT, 1, b""),
        (Kind.ACCEPT, 1, bytes(17)),
        (Kind.ACCEPT, 2, [b"short"]),
        (Kind.ACCEPT, 2, [ID] * 257),
        (Kind.ACCEPT, 3, [ID]),
        (Kind.ACCEPT, 3, [[ID] * 5]),
        (Kind.ACCEPT, 3, [[]] * 257),
        (Kind.REFUSE, 1, True),
        (Kind.REFUSE, 3, b"bytes"),
        (Kind.PROGRESS, 4, []),
        (Kind.PROGRESS, 4, [0, ID, -1]),
        (Kind.STALE, 1, [b"", b"", b""]),
        (Kind.RESULT, 1, {b"bytes": 1}),
        (Kind.NOTICE, 2, []),
    ],
)
def test_a_field_of_a_wrong_form(kind: Kind, index: int, value: object) -> None:
    """Rules: C-02"""
    body = list(BODIES[kind])
    body[index] = value
    with pytest.raises(PacketError) as caught:
        decode(signed(kind, msgpack.packb(body)))
    assert caught.value.fault is Fault.FIELD


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        (b"", Fault.TRUNCATED),
        (bytes(97), Fault.TRUNCATED),
        (bytes(98), Fault.FORMAT),
        (bytes(MESSAGE_BYTES_MAX + 1), Fault.LIMIT),
        (signed(Kind.CANCEL, b"\xc1"), Fault.MSGPACK),
        (signed(Kind.CANCEL, b"\x05"), Fault.FIELD),
        (signed(Kind.CANCEL, msgpack.packb([])), Fault.FIELD),
        (signed(Kind.CANCEL, msgpack.packb([ID, ID])), Fault.FIELD),
    ],
)
def test_one_way_to_be_wrong(message: bytes, fault: Fault) -> None:
    """Rules: C-02"""
    with pytest.raises(PacketError) as caught:
        decode(message)
    assert caught.value.fault is fault


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([b"", NONCE, ID]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(list(Kind)), st.data())
def test_rightly_signed_nonsense(kind: Kind, data: st.DataObject) -> None:
    """Rules: C-02"""
    body = list(BODIES[kind])
    body[data.draw(st.integers(0, len(body) - 1))] = data.draw(plain)
    try:
        message = decode(signed(kind, msgpack.packb(body)))
    except PacketError:
        return
    assert message.kind is kind


@given(st.binary(max_size=300))
def test_arbitrary_bytes(message: bytes) -> None:
    """Rules: C-02"""
    with pytest.raises(PacketError):
        decode(message)


@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_a_stream_is_cut_where_the_messages_end(messages: list[bytes], step: int) -> None:
    """Rules: C-03"""
    stream = b"".join(len(m).to_bytes(4, "little") + m for m in messages)
    splitter, got = Splitter(), []
    for at in range(0, len(stream), step):
        got += splitter.feed(memoryview(stream)[at : at + step])
    assert got == messages


def test_a_length_above_the_limit_is_refused_before_its_bytes_come() -> None:
    """Rules: C-03"""
    splitter = Splitter()
    with pytest.raises(PacketError) as caught:
        splitter.feed(memoryview((MESSAGE_BYTES_MAX + 1).to_bytes(4, "little")))
    assert caught.value.fault is Fault.LIMIT
