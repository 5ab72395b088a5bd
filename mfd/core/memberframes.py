"""Frames of membership and gossip: values <-> bytes.

    | type u8, 32 to 49 | MessagePack array |

Rules of this file: any bytes give a value or a PacketError, and every type has a size of its own
that is checked before anything is read. A record is bytes here; who opens it checks it.
Source: spec/membership.md, section "Frames".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import msgpack

from mfd.core.records import SEALED_BYTES_MAX, Item
from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import Buffer

__all__ = [
    "BUCKETS",
    "IDS_MAX",
    "ITEMS_MAX",
    "PAYLOAD_BYTES_MAX",
    "TREE_BYTES",
    "Ask",
    "Buckets",
    "Call",
    "Called",
    "Digest",
    "Disconnect",
    "ForwardJoin",
    "Graft",
    "IHave",
    "Join",
    "MemberFrame",
    "Probe",
    "ProbeReply",
    "Prune",
    "Reply",
    "Rumour",
    "Shuffle",
    "ShuffleReply",
    "Sync",
    "decode_member",
    "encode_member",
]

ITEMS_MAX = 8  # records in one frame, beside the sender's
IDS_MAX = 64
PAYLOAD_BYTES_MAX = 5 << 10  # two certificates and a signature
BUCKETS = 256
NONCE_BYTES = 8
ID_BYTES = 32
TREE_BYTES = 8
AGE_S_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class Join:
    """I am new here: make me your neighbour and tell others."""

    item: Item  # the sender's own record


@dataclass(frozen=True, slots=True)
class ForwardJoin:
    """Somebody is new; it walks on while `ttl` lasts."""

    item: Item  # the newcomer's
    ttl: int


@dataclass(frozen=True, slots=True)
class Ask:
    """Be my neighbour. Urgent: I have too few, so make room."""

    item: Item
    urgent: bool


@dataclass(frozen=True, slots=True)
class Reply:
    """Yes or no, who I am, and others to turn to."""

    accepted: bool
    item: Item
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Shuffle:
    """Records for records; it walks on while `ttl` lasts, the answer comes back the same way."""

    nonce: bytes
    ttl: int
    item: Item  # the origin's
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class ShuffleReply:
    """The answer to a shuffle; unasked (nonce of zeros) before a Disconnect."""

    nonce: bytes
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Disconnect:
    """This link ends and nobody is at fault; `code` says why."""

    code: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Do you hear this peer?"""

    target: bytes


@dataclass(frozen=True, slots=True)
class ProbeReply:
    """0: it is no neighbour of mine; 1: I hear it; 2: I do not."""

    target: bytes
    heard: int


@dataclass(frozen=True, slots=True)
class Rumour:
    """Something for everybody. Its id is the digest of kind and payload."""

    kind: int
    age_s: int  # since it was first said; what is older than its kind allows is dropped
    hops: int
    tree: bytes  # over which it goes; the first 8 bytes of the id of the rumour that founded it
    payload: bytes


@dataclass(frozen=True, slots=True)
class IHave:
    """Ids of rumours that can be had from me."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Graft:
    """Send me these, and what comes later as it comes."""

    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Prune:
    """I hear it from others first: in this tree ids are enough from now on."""

    tree: bytes


@dataclass(frozen=True, slots=True)
class Digest:
    """One digest of all rumours that I hold."""

    root: bytes  # 16 bytes


@dataclass(frozen=True, slots=True)
class Buckets:
    """The answer where the digests differ: 256 sums of ids, by first byte."""

    sums: bytes  # 256 x 8 bytes


@dataclass(frozen=True, slots=True)
class Sync:
    """What I hold in the buckets that differ; tell me what you hold there beside."""

    buckets: bytes  # 256 bits, lowest first
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """I want circuits with you, though you are no neighbour of mine."""

    item: Item  # the sender's own record


@dataclass(frozen=True, slots=True)
class Called:
    """Yes or no."""

    accepted: bool
    item: Item


MemberFrame = (
    Join
    | ForwardJoin
    | Ask
    | Reply
    | Shuffle
    | ShuffleReply
    | Disconnect
    | Probe
    | ProbeReply
    | Rumour
    | IHave
    | Graft
    | Prune
    | Digest
    | Buckets
    | Sync
    | Call
    | Called
)

_ITEM_BYTES = SEALED_BYTES_MAX + 16
_IDS_BYTES = IDS_MAX * (ID_BYTES + 2) + 16
_CAPS: dict[type[Any], tuple[int, int]] = {  # type byte, most bytes of the body
    Join: (32, _ITEM_BYTES),
    ForwardJoin: (33, _ITEM_BYTES),
    Ask: (34, _ITEM_BYTES),
    Reply: (35, (1 + ITEMS_MAX) * _ITEM_BYTES),
    Shuffle: (36, (1 + ITEMS_MAX) * _ITEM_BYTES + 16),
    ShuffleReply: (37, ITEMS_MAX * _ITEM_BYTES + 16),
    Disconnect: (38, 8),
    Probe: (39, 48),
    ProbeReply: (40, 48),
    Rumour: (41, PAYLOAD_BYTES_MAX + 32),
    IHave: (42, _IDS_BYTES),
    Graft: (43, _IDS_BYTES),
    Prune: (44, 16),
    Digest: (45, 32),
    Buckets: (46, BUCKETS * 8 + 16),
    Sync: (47, _IDS_BYTES + BUCKETS // 8 + 8),
    Call: (48, _ITEM_BYTES),
    Called: (49, _ITEM_BYTES),
}
_LIMITS = dict(_CAPS.values())
_NAMES = {kind: [field.name for field in fields(kind)] for kind in _CAPS}


def encode_member(frame: MemberFrame) -> bytes:
    """One whole frame."""
    values = [getattr(frame, name) for name in _NAMES[type(frame)]]
    return bytes((_CAPS[type(frame)][0],)) + bytes(msgpack.packb(values))


def decode_member(kind: int, body: Buffer) -> MemberFrame:
    """Read the body of a frame of type `kind`.

    Raises: PacketError, whatever the bytes.
    """
    limit = _LIMITS.get(kind)
    if limit is None:
        raise PacketError(Fault.FORMAT, f"frame type {kind}")
    if len(memoryview(body)) > limit:
        raise PacketError(Fault.LIMIT, f"frame type {kind} of {len(memoryview(body))} bytes")
    try:
        row = msgpack.unpackb(body, strict_map_key=True)
    except (ValueError, msgpack.UnpackException, RecursionError) as exc:
        raise PacketError(Fault.MSGPACK, f"frame type {kind}") from exc
    if not isinstance(row, list):
        raise PacketError(Fault.FIELD, f"frame type {kind} is not a list")
    make, checks = _READERS[kind]
    if len(row) != len(checks):
        raise PacketError(Fault.FIELD, f"{len(row)} fields instead of {len(checks)}")
    frame: MemberFrame = make(*(check(v) for check, v in zip(checks, row, strict=True)))
    return frame


Check = Callable[[Any], Any]


def _whole(most: int) -> Check:
    def check(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= most:
            raise PacketError(Fault.FIELD, "number out of range")
        return value

    return check


def _bytes(low: int, high: int) -> Check:
    def check(value: Any) -> bytes:
        if not isinstance(value, bytes) or not low <= len(value) <= high:
            raise PacketError(Fault.FIELD, "bytes of a wrong length")
        return value

    return check


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise PacketError(Fault.FIELD, "neither yes nor no")
    return value


def _item(value: Any) -> Item:
    if not isinstance(value, list) or len(value) != 2:
        raise PacketError(Fault.FIELD, "record and age")
    return _bytes(96, SEALED_BYTES_MAX)(value[0]), _whole(AGE_S_MAX)(value[1])


def _list(most: int, each: Check) -> Check:
    def check(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list) or len(value) > most:
            raise PacketError(Fault.FIELD, "too many entries")
        return tuple(map(each, value))

    return check


_nonce = _bytes(NONCE_BYTES, NONCE_BYTES)
_id = _bytes(ID_BYTES, ID_BYTES)
_tree = _bytes(TREE_BYTES, TREE_BYTES)
_ids = _list(IDS_MAX, _id)
_items = _list(ITEMS_MAX, _item)
_octet = _whole(255)

_READERS: dict[int, tuple[Callable[..., MemberFrame], tuple[Check, ...]]] = {
    32: (Join, (_item,)),
    33: (ForwardJoin, (_item, _octet)),
    34: (Ask, (_item, _flag)),
    35: (Reply, (_flag, _item, _items)),
    36: (Shuffle, (_nonce, _octet, _item, _items)),
    37: (ShuffleReply, (_nonce, _items)),
    38: (Disconnect, (_octet,)),
    39: (Probe, (_id,)),
    40: (ProbeReply, (_id, _whole(2))),
    41: (Rumour, (_octet, _whole(AGE_S_MAX), _octet, _tree, _bytes(1, PAYLOAD_BYTES_MAX))),
    42: (IHave, (_ids,)),
    43: (Graft, (_ids,)),
    44: (Prune, (_tree,)),
    45: (Digest, (_bytes(16, 16),)),
    46: (Buckets, (_bytes(8 * BUCKETS, 8 * BUCKETS),)),
    47: (Sync, (_bytes(BUCKETS // 8, BUCKETS // 8), _ids)),
    48: (Call, (_item,)),
    49: (Called, (_flag, _item)),
}
