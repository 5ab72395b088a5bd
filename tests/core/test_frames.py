"""Frames between neighbours: what was encoded comes back, anything else is one typed error."""

from __future__ import annotations

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.frames import (
    Bye,
    Class,
    Credit,
    Data,
    End,
    Found,
    Open,
    Opened,
    Ping,
    Pong,
    Reset,
    ResetCode,
    Seek,
    SeqnoRequest,
    Update,
    Via,
    decode_frame,
    encode_data,
    encode_frame,
)
from mfd.core.sources import SEQNO_MAX
from mfd.packet.errors import Fault, PacketError

KEY = bytes(range(32))
FRAMES = [
    Ping(7),
    Pong(7),
    Bye("stopping"),
    Update([["x", 1]]),
    SeqnoRequest(["a", KEY, 1, 0, 64]),
    Seek([bytes(16), ["digits"], b"filter", 2]),
    Found([bytes(16), [b"8 bytes."], [[b"record", 30, 1]], True]),
    Open(1, KEY, None, (), bytes(16), 1, Class.THIN, b""),
    Open(3, KEY, Via("digits", KEY, 9, 2_000), (b"8 bytes.",), bytes(16), 63, Class.BULK, b"h"),
    Open(5, KEY, Via("d", KEY, SEQNO_MAX, (1 << 32) - 1), (), bytes(16), 1, Class.THIN, b""),
    Opened(1, b"answer", 3, 2_500, 10_000_000),
    Credit(1, 4_096),
    End(1),
    Reset(1, ResetCode.BUSY, 1_000_000),
]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda f: type(f).__name__)
def test_round_trip(frame) -> None:
    """Rules: T-01, T-02"""
    assert decode_frame(encode_frame(frame)) == frame


def test_the_bytes_are_those_of_the_specification() -> None:
    """Rules: T-01, T-02"""
    assert encode_frame(Credit(5, 300)) == b"\x13" + msgpack.packb([5, 300])
    assert encode_frame(Reset(5, ResetCode.LOOP, 0)) == b"\x15" + msgpack.packb([5, 3, 0])
    via = ["n", KEY, 1, 2]
    body = [9, KEY, via, [], bytes(16), 1, 1, b"h"]
    frame = Open(9, KEY, Via("n", KEY, 1, 2), (), bytes(16), 1, Class.BULK, b"h")
    assert encode_frame(frame) == b"\x10" + msgpack.packb(body)
    assert encode_data(0x01020304) + b"xy" == b"\x12\x04\x03\x02\x01xy"
    data = decode_frame(b"\x12\x04\x03\x02\x01xy")
    assert isinstance(data, Data)
    assert (data.circuit, bytes(data.payload)) == (0x01020304, b"xy")


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (b"", Fault.TRUNCATED),
        (b"\x12\x01\x00\x00\x00", Fault.TRUNCATED),
        (b"\x12\x01\x00\x00\x00" + bytes((64 << 10) + 1), Fault.LIMIT),
        (b"\x04" + bytes(64 << 10), Fault.LIMIT),
        (b"\x99\x90", Fault.FORMAT),
        (b"\x01", Fault.MSGPACK),
        (b"\x01\x91\x01\x01", Fault.MSGPACK),
        (b"\x01\x01", Fault.FIELD),
        (b"\x01" + msgpack.packb([]), Fault.FIELD),
        (b"\x01" + msgpack.packb([-1]), Fault.FIELD),
        (b"\x01" + msgpack.packb([True]), Fault.FIELD),
        (b"\x03" + msgpack.packb(["x" * 513]), Fault.FIELD),
        (b"\x13" + msgpack.packb([1 << 31, 1]), Fault.FIELD),
        (b"\x13" + msgpack.packb([1, 1 << 31]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY, None, [], bytes(16), 1, 2, b""]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY, None, [], bytes(16), 1, 1.0, b""]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY, None, [], bytes(15), 1, 1, b""]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY, None, [], bytes(16), 1, 1, bytes(513)]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY, None, [b"x"], bytes(16), 1, 1, b""]), Fault.FIELD),
        (
            b"\x10" + msgpack.packb([1, KEY, None, [bytes(8)] * 65, bytes(16), 1, 1, b""]),
            Fault.FIELD,
        ),
        (b"\x10" + msgpack.packb([1, KEY, 5, [], bytes(16), 1, 1, b""]), Fault.FIELD),
        (b"\x10" + msgpack.packb([1, KEY[:31], None, [], bytes(16), 1, 1, b""]), Fault.FIELD),
    ],
)
def test_one_way_to_be_wrong(frame: bytes, fault: Fault) -> None:
    """Rules: T-02"""
    with pytest.raises(PacketError) as caught:
        decode_frame(frame)
    assert caught.value.fault is fault


def test_an_unknown_reset_code_is_read_as_unknown() -> None:
    """Rules: T-10"""
    frame = decode_frame(b"\x15" + msgpack.packb([5, 99, 0]))
    assert frame == Reset(5, ResetCode.UNKNOWN, 0)


def decodes_or_refuses(frame: bytes) -> None:
    try:
        value = decode_frame(frame)
    except PacketError:
        return
    if not isinstance(value, Data):
        assert decode_frame(encode_frame(value)) == value


@given(st.sampled_from([1, 2, 3, 16, 17, 18, 19, 20, 21, 77]), st.binary(max_size=200))
def test_arbitrary_bytes(kind: int, body: bytes) -> None:
    """Rules: T-02"""
    decodes_or_refuses(bytes((kind,)) + body)


@given(st.sampled_from(FRAMES), st.data())
def test_mutated_frames(frame, data: st.DataObject) -> None:
    """Rules: T-02"""
    raw = bytearray(encode_frame(frame))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    decodes_or_refuses(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    decodes_or_refuses(bytes(raw))
