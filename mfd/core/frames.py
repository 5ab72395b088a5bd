"""Frames between two neighbours: values <-> bytes.

    | type u8 | MessagePack array |            every frame but DATA
    | 18      | circuit u32 LE | payload |     DATA, so that a relay swaps the label without a copy

Rules of this file: any bytes give a frame or a PacketError. Nothing here knows what a frame is for.
Source: spec/transfer.md, sections "Frames" and "Limits"; spec/routing.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from operator import attrgetter
from typing import Any

import msgpack

from mfd.packet.errors import Fault, PacketError
from mfd.packet.limits import NAME_BYTES_MAX
from mfd.packet.objects import Buffer

__all__ = [
    "Bye",
    "Class",
    "Credit",
    "Data",
    "End",
    "Found",
    "Frame",
    "Member",
    "Open",
    "Opened",
    "Ping",
    "Pong",
    "Reset",
    "ResetCode",
    "Seek",
    "SeqnoRequest",
    "Update",
    "Via",
    "decode_frame",
    "encode_data",
    "encode_frame",
]

HANDSHAKE_BYTES_MAX = 512
ROUTE_HOPS_MAX = 64
CONTROL_BYTES_MAX = 64 << 10
DATA_BYTES_MAX = 64 << 10
DATA_HEAD_BYTES = 5
DATA_TYPE = 18
MEMBER_TYPES = range(32, 50)


class Class(IntEnum):
    """Thin circuits carry custody, bulk ones carry objects; each has its own metric and credit."""

    THIN = 0
    BULK = 1


class ResetCode(IntEnum):
    """Why a circuit ended before its time."""

    NO_ROUTE = 1
    BUSY = 2
    LOOP = 3
    HOPS = 4
    REFUSED = 5
    STALLED = 6
    LINK_DOWN = 7
    UNKNOWN = 8


@dataclass(frozen=True, slots=True)
class Via:
    """The promise that routes an OPEN: every hop must be strictly nearer than this says."""

    name: str
    holder: bytes
    seqno: int
    metric: int


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there."""

    echo: int


@dataclass(frozen=True, slots=True)
class Pong:
    """I am."""

    echo: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The link is about to be closed, and why."""

    reason: str


@dataclass(slots=True)
class Update:
    """Routing news; the entries are routing's business."""

    body: Any


@dataclass(frozen=True, slots=True)
class SeqnoRequest:
    """A starving peer asks a holder for a newer sequence number."""

    body: Any


@dataclass(frozen=True, slots=True)
class Seek:
    """Somebody looks for a holder; the fields are the seeker's business."""

    body: Any


@dataclass(frozen=True, slots=True)
class Found:
    """Holders that a SEEK has found, on the way back to who asked."""

    body: Any


@dataclass(slots=True)
class Member:
    """Membership and gossip; the body is read by mfd.core.memberframes."""

    kind: int
    body: Buffer


@dataclass(frozen=True, slots=True)
class Open:
    """Set up a circuit toward `target`."""

    circuit: int  # label on this link
    target: bytes
    via: Via | None  # None: the target is the receiver itself, or its neighbour
    route: tuple[bytes, ...]  # next hops, 8 bytes each, at most 64; then, or if empty: `via`
    nonce: bytes  # 16 bytes, the same on every hop
    hops: int  # so far
    cls: Class
    handshake: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """The circuit stands."""

    circuit: int
    handshake: bytes
    hops: int  # from the answering end
    rtt_us: int  # sum over the links behind, 0 where not measured
    rate: int  # bytes/s of the narrowest link behind, 0 where not measured


@dataclass(slots=True)  # made for every frame of bulk: a frozen one takes twice as long
class Data:
    """Payload, at most what the credit allows."""

    circuit: int
    payload: memoryview


@dataclass(frozen=True, slots=True)
class Credit:
    """The sender may send `amount` bytes more."""

    circuit: int
    amount: int


@dataclass(frozen=True, slots=True)
class End:
    """No more bytes will come from this side."""

    circuit: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The circuit is gone."""

    circuit: int
    code: ResetCode
    retry_us: int


Told = Update | SeqnoRequest | Seek | Found  # one value each, read elsewhere
Frame = Ping | Pong | Bye | Told | Member | Open | Opened | Data | Credit | End | Reset

_TYPES: dict[type[Any], int] = {
    Ping: 1,
    Pong: 2,
    Bye: 3,
    Update: 4,
    SeqnoRequest: 5,
    Seek: 12,
    Found: 13,
    Open: 16,
    Opened: 17,
    Credit: 19,
    End: 20,
    Reset: 21,
}


_FIELDS = {kind: attrgetter(*kind.__dataclass_fields__) for kind in _TYPES}


def encode_data(circuit: int) -> bytes:
    """Head of a DATA frame; the payload follows as its own part."""
    return bytes((DATA_TYPE,)) + circuit.to_bytes(4, "little")


def encode_frame(frame: Frame) -> bytes:
    """One whole control frame."""
    assert not isinstance(frame, Data)
    if isinstance(frame, Member):
        return bytes((frame.kind,)) + bytes(frame.body)
    fields: Any = frame.body if isinstance(frame, Told) else _values(frame)
    return bytes((_TYPES[type(frame)],)) + bytes(msgpack.packb(fields))


def _values(frame: Any) -> list[Any]:
    """The fields of a frame, in order; `dataclasses.astuple` would copy each of them deeply."""
    values = _FIELDS[type(frame)](frame)
    fields = list(values) if isinstance(values, tuple) else [values]
    if isinstance(frame, Open) and frame.via is not None:
        fields[2] = [frame.via.name, frame.via.holder, frame.via.seqno, frame.via.metric]
    return fields


def decode_frame(buffer: Buffer) -> Frame:
    """Read one frame.

    Raises: PacketError, whatever the bytes.
    """
    view = memoryview(buffer)
    if not view:
        raise PacketError(Fault.TRUNCATED, "frame")
    kind = view[0]
    if kind == DATA_TYPE:
        if len(view) <= DATA_HEAD_BYTES:
            raise PacketError(Fault.TRUNCATED, "DATA frame")
        if len(view) > DATA_HEAD_BYTES + DATA_BYTES_MAX:
            raise PacketError(Fault.LIMIT, f"DATA frame of {len(view)} bytes")
        return Data(int.from_bytes(view[1:5], "little"), view[5:])
    if len(view) > CONTROL_BYTES_MAX:
        raise PacketError(Fault.LIMIT, f"control frame of {len(view)} bytes")
    if kind in MEMBER_TYPES:
        return Member(kind, view[1:])
    reader = _READERS.get(kind)
    if reader is None:
        raise PacketError(Fault.FORMAT, f"frame type {kind}")
    try:
        body = msgpack.unpackb(view[1:], strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as exc:
        raise PacketError(Fault.MSGPACK, f"frame type {kind}") from exc
    if not isinstance(body, list):
        raise PacketError(Fault.FIELD, f"frame type {kind} is not a list")
    return reader(body)


def _whole(value: object, bits: int = 63) -> int:
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise PacketError(Fault.FIELD, "number out of range")
    return value


def _bytes(value: object, low: int, high: int) -> bytes:
    if not isinstance(value, bytes) or not low <= len(value) <= high:
        raise PacketError(Fault.FIELD, "bytes of a wrong length")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str) or len(value.encode()) > NAME_BYTES_MAX:
        raise PacketError(Fault.FIELD, "text of a wrong length")
    return value


def _row(body: list[Any], size: int) -> list[Any]:
    if len(body) != size:
        raise PacketError(Fault.FIELD, f"{len(body)} fields instead of {size}")
    return body


def _read_via(value: object) -> Via | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise PacketError(Fault.FIELD, "via")
    name, holder, seqno, metric = _row(value, 4)
    return Via(_text(name), _bytes(holder, 32, 32), _whole(seqno), _whole(metric, 32))


def _read_open(body: list[Any]) -> Open:
    circuit, target, via, route, nonce, hops, cls, handshake = _row(body, 8)
    if not isinstance(route, list) or len(route) > ROUTE_HOPS_MAX:
        raise PacketError(Fault.FIELD, "route of an OPEN")
    if type(cls) is not int or cls not in (Class.THIN, Class.BULK):
        raise PacketError(Fault.FIELD, "class of an OPEN")
    return Open(
        _whole(circuit, 31),
        _bytes(target, 32, 32),
        _read_via(via),
        tuple(_bytes(hop, 8, 8) for hop in route),
        _bytes(nonce, 16, 16),
        _whole(hops, 8),
        Class(cls),
        _bytes(handshake, 0, HANDSHAKE_BYTES_MAX),
    )


def _read_opened(body: list[Any]) -> Opened:
    circuit, handshake, hops, rtt, rate = _row(body, 5)
    return Opened(
        _whole(circuit, 31),
        _bytes(handshake, 0, HANDSHAKE_BYTES_MAX),
        _whole(hops, 8),
        _whole(rtt),
        _whole(rate),
    )


def _read_reset(body: list[Any]) -> Reset:
    circuit, code, retry = _row(body, 3)
    known = code if code in ResetCode.__members__.values() else ResetCode.UNKNOWN
    return Reset(_whole(circuit, 31), ResetCode(known), _whole(retry))


_READERS: dict[int, Callable[[list[Any]], Frame]] = {
    1: lambda b: Ping(_whole(_row(b, 1)[0])),
    2: lambda b: Pong(_whole(_row(b, 1)[0])),
    3: lambda b: Bye(_text(_row(b, 1)[0])),
    4: Update,
    5: SeqnoRequest,
    12: Seek,
    13: Found,
    16: _read_open,
    17: _read_opened,
    19: lambda b: Credit(_whole(_row(b, 2)[0], 31), _whole(b[1], 31)),
    20: lambda b: End(_whole(_row(b, 1)[0], 31)),
    21: _read_reset,
}
