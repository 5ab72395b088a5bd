"""Frames of membership: what was encoded comes back, anything else is one typed error."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core import memberframes
from mfd.core.frames import Member, decode_frame, encode_frame
from mfd.core.memberframes import (
    Ask,
    Buckets,
    Digest,
    Disconnect,
    ForwardJoin,
    Graft,
    IHave,
    Join,
    MemberFrame,
    Probe,
    ProbeReply,
    Prune,
    Reply,
    Rumour,
    Shuffle,
    ShuffleReply,
    Sync,
    decode_member,
    encode_member,
)
from mfd.core.records import SEALED_BYTES_MAX
from mfd.packet.errors import PacketError

ITEM = (bytes(SEALED_BYTES_MAX), (1 << 32) - 1)
SMALL = (bytes(96), 0)
LARGEST: list[MemberFrame] = [
    Join(ITEM),
    ForwardJoin(ITEM, 255),
    Ask(ITEM, True),
    Reply(True, ITEM, (ITEM,) * 8),
    Shuffle(bytes(8), 255, ITEM, (ITEM,) * 8),
    ShuffleReply(bytes(8), (ITEM,) * 8),
    Disconnect(255),
    Probe(bytes(32)),
    ProbeReply(bytes(32), 2),
    Rumour(255, (1 << 32) - 1, 255, bytes(8), bytes(5_120)),
    IHave((bytes(32),) * 64),
    Graft((bytes(32),) * 64),
    Prune(bytes(8)),
    Digest(bytes(16)),
    Buckets(bytes(2_048)),
    Sync(bytes(32), (bytes(32),) * 64),
]
SMALLEST: list[MemberFrame] = [
    Reply(False, SMALL, ()),
    Shuffle(bytes(8), 0, SMALL, ()),
    ShuffleReply(bytes(8), ()),
    Rumour(0, 0, 0, bytes(8), b"x"),
    IHave(()),
    Sync(bytes(32), ()),
]


def body_of(frame: MemberFrame) -> list:
    return msgpack.unpackb(encode_member(frame)[1:])


def named(frame: MemberFrame) -> str:
    return type(frame).__name__


@pytest.mark.parametrize("frame", LARGEST + SMALLEST, ids=named)
def test_what_is_encoded_comes_back(frame: MemberFrame) -> None:
    """Rules: M-06"""
    raw = decode_frame(encode_member(frame))
    assert isinstance(raw, Member)
    assert decode_member(raw.kind, raw.body) == frame
    assert encode_frame(raw) == encode_member(frame)


def test_every_type_has_a_frame() -> None:
    assert {encode_member(frame)[0] for frame in LARGEST} == set(range(32, 48))


@pytest.mark.parametrize("frame", LARGEST, ids=named)
def test_larger_frames_are_refused_unread(
    frame: MemberFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules: M-06"""
    body = encode_member(frame)[1:]
    limit = memberframes._LIMITS[encode_member(frame)[0]]
    assert len(body) <= limit <= len(body) * 1.3 + 48
    monkeypatch.setattr(memberframes.msgpack, "unpackb", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(PacketError, match="bytes"):
        decode_member(encode_member(frame)[0], bytes(limit + 1))


@pytest.mark.parametrize("frame", LARGEST, ids=named)
def test_other_fields_are_refused(frame: MemberFrame) -> None:
    """Rules: M-06"""
    kind, body = encode_member(frame)[0], body_of(frame)
    wrong: list[object] = [None, -1, 1.5, "x", {}, [[]], [[bytes(95), 0]], [b""], b"", 1 << 32]
    for at, right in enumerate(body):
        for value in wrong:
            with pytest.raises(PacketError):
                decode_member(kind, msgpack.packb([*body[:at], value, *body[at + 1 :]]))
        if isinstance(right, bool):
            with pytest.raises(PacketError):
                decode_member(kind, msgpack.packb([*body[:at], 1, *body[at + 1 :]]))
    for whole in (body[:-1] if body else [1], {}, 7, None):
        with pytest.raises(PacketError):
            decode_member(kind, msgpack.packb(whole))


def test_longer_lists_are_refused() -> None:
    """Rules: M-06"""
    for kind, body in (
        (35, [True, SMALL, [SMALL] * 9]),
        (37, [bytes(8), [SMALL] * 9]),
        (42, [[bytes(32)] * 65]),
        (41, [1, 0, 0, bytes(8), b""]),
        (41, [1, 0, 0, bytes(9), b"x"]),
        (44, [bytes(7)]),
        (40, [bytes(32), 3]),
    ):
        with pytest.raises(PacketError):
            decode_member(kind, msgpack.packb(body))


@given(st.integers(0, 255), st.binary(max_size=400))
def test_any_bytes_give_a_frame_or_a_packet_error(kind: int, body: bytes) -> None:
    """Rules: M-06"""
    with suppress(PacketError):
        decode_member(kind, body)
