"""Everything that a peer can ask of the world, as values. Names are bare verbs.

Rules of this file: made by `Peer.handle`, carried out by a driver (net or sim) in the order of the
list. Whatever promises durability is sent only after the event `Stored` of its Store.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mfd.packet.objects import Buffer
from mfd.packet.task import LearnTask

__all__ = [
    "CancelLearn",
    "Channel",
    "Close",
    "Dial",
    "Discard",
    "Effect",
    "Fetch",
    "FetchTable",
    "Keep",
    "Learn",
    "Remember",
    "Report",
    "Send",
    "Store",
]

Channel = Literal["control", "bulk"]
Value = str | int | float | bool | None | bytes


@dataclass(slots=True)  # made for every frame: a frozen one takes twice as long
class Send:
    """Write one frame. Order holds within a channel of a link; bulk never delays control."""

    link: int
    channel: Channel
    frame: tuple[Buffer, ...]  # parts, to be written one after the other without joining


@dataclass(frozen=True, slots=True)
class Dial:
    """Try to make a link. Answered by LinkUp or DialFailed."""

    address: str


@dataclass(frozen=True, slots=True)
class Close:
    """End a link, after what was sent on it. LinkDown follows."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Store:
    """Make durable, in this order: objects' bytes, one transaction of ledger rows; then drop."""

    op: int
    objects: tuple[bytes, ...] = ()  # digests of complete objects written before
    put: tuple[tuple[str, bytes], ...] = ()
    delete: tuple[str, ...] = ()
    drop: tuple[bytes, ...] = ()  # objects that no row names any more


@dataclass(frozen=True, slots=True)
class Fetch:
    """Read one raw chunk of a stored object, check it, encode it for the wire."""

    op: int
    digest: bytes
    chunk: int
    link_bytes_per_s: int = 0  # 0: not known; lets the codec weigh time against size
    base: bytes = b""  # object that the receiver has named, for a difference; empty: none


@dataclass(frozen=True, slots=True)
class FetchTable:
    """Read the digests of an object's raw chunks. Answered by Fetched: 32 bytes each, joined."""

    op: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Keep:
    """Decode a received chunk, check it against its digest, write it into the growing object."""

    op: int
    digest: bytes  # of the object
    raw_bytes: int  # of the object
    chunk: int
    chunks: tuple[bytes, ...]  # digests of all raw chunks, already checked against the object's
    encoding: int
    body: Buffer
    base: bytes = b""  # object that the chunk may build upon; empty: none


@dataclass(frozen=True, slots=True)
class Discard:
    """Forget a growing object."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Learn:
    """Hand a job to the learner. Answered by Learned or LearnFailed."""

    job: int
    task: LearnTask


@dataclass(frozen=True, slots=True)
class CancelLearn:
    """Stop a job; its LearnFailed still comes."""

    job: int


@dataclass(frozen=True, slots=True)
class Remember:
    """Keep the good peers for the next start, instead of those kept before; no answer."""

    peers: tuple[tuple[bytes, tuple[str, ...]], ...]  # id and addresses, the best last


@dataclass(frozen=True, slots=True)
class Report:
    """Tell the owner of this peer what happened; kept and shown by the driver."""

    kind: str
    fields: Mapping[str, Value] = field(default_factory=dict)


Effect = (
    Send | Dial | Close | Store | Fetch | FetchTable | Keep | Discard | Learn | CancelLearn
) | (Remember | Report)
