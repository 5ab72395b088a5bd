"""Everything that can happen to a peer, as values. Names end in -ed, or Up and Down.

Rules of this file: made by a driver (net or sim), read by `Peer.handle`; no behaviour.
`op` and `job` are numbers that the core gave out in an effect and that come back once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mfd.packet.errors import Fault
from mfd.packet.objects import Buffer
from mfd.packet.task import LearnResult

__all__ = [
    "Addressed",
    "CommandFailed",
    "DialFailed",
    "Discovered",
    "Event",
    "FetchFailed",
    "Fetched",
    "Held",
    "Injected",
    "Joined",
    "KeepFailed",
    "Kept",
    "LearnFailed",
    "Learned",
    "LinkDown",
    "LinkUp",
    "Received",
    "Remembered",
    "Restored",
    "StopRequested",
    "StoreFailed",
    "Stored",
    "Ticked",
    "Unheld",
    "Written",
]


class CommandFailed(ValueError):
    """A local command cannot be carried out: the only error that `handle` raises."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The store is open. First event of a peer's life; every start raises `boot` durably by one."""

    boot: int
    records: Mapping[str, bytes] = field(default_factory=dict)  # ledger rows by key
    objects: Mapping[bytes, int] = field(default_factory=dict)  # digest -> raw bytes, complete ones


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link to a neighbour is authenticated and ready for frames on both channels."""

    link: int  # chosen by the driver, never used again
    peer: bytes  # the neighbour's id, 32 bytes, proven
    address: str  # what was dialled, or where it came from
    outbound: bool  # we dialled
    cost: int = 100  # metric of the link, unit 10 us, >= 1
    private: bool = False  # encrypted, and bound to the proven neighbour
    paced: bool = False  # Written tells what has left on bulk; without it, all leaves at once


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link is gone; no frame of it comes after this."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class DialFailed:
    """A Dial effect came to nothing.

    `standing` is the peer that answered where nothing is wrong: a link to it stands already, by
    what this side or the other knows.
    """

    address: str
    reason: str
    standing: bytes = b""


@dataclass(frozen=True, slots=True)
class Written:
    """So many bytes have left on the bulk channel of a link, each frame's length (4) included."""

    link: int
    size: int


@dataclass(slots=True)  # made for every frame: a frozen one takes twice as long
class Received:
    """One whole frame. The buffer may be reused once its effects are carried out."""

    link: int
    frame: Buffer


@dataclass(frozen=True, slots=True)
class Stored:
    """Everything that Store effect `op` asked for is on disk and survives a power cut."""

    op: int


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The disk refused; the peer takes no more custody."""

    op: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """One chunk of an object, encoded for the wire."""

    op: int
    encoding: int
    body: Buffer


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The object is missing or damaged on this disk."""

    op: int
    reason: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A received chunk was decoded, had the digest it claims, and is written (not yet synced)."""

    op: int


@dataclass(frozen=True, slots=True)
class KeepFailed:
    """A received chunk was refused."""

    op: int
    fault: Fault
    reason: str = ""  # where the disk is at fault, not the chunk


@dataclass(frozen=True, slots=True)
class Learned:
    """A Learn effect is done; its new layers are in the store, not yet synced."""

    job: int
    result: LearnResult


@dataclass(frozen=True, slots=True)
class LearnFailed:
    """The learner gave up, crashed or was killed. Nothing is lost but time."""

    job: int
    reason: str


@dataclass(frozen=True, slots=True)
class Held:
    """The owner of this peer offers data under a name."""

    name: str
    samples: int
    labels: bytes = b""  # rounded histogram (core.sources), where the owner wants it told


@dataclass(frozen=True, slots=True)
class Unheld:
    """The owner of this peer withdraws data."""

    name: str


@dataclass(frozen=True, slots=True)
class Joined:
    """The owner of this peer wants a link to an address, kept up for ever."""

    address: str


@dataclass(frozen=True, slots=True)
class Addressed:
    """Others can dial this peer at these addresses, host:port, best first."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Discovered:
    """Somebody on the LAN says that a peer listens at an address; nothing of it is proven."""

    peer: bytes
    address: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """Good peers of an earlier life: id and addresses, the best last. Follows Restored."""

    peers: tuple[tuple[bytes, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class Injected:
    """A new walker, made by a user, enters here; its objects are in the store, not yet synced."""

    genesis: bytes  # signed record, core.certificates
    plan: bytes  # signed record
    manifest: bytes
    signature: bytes  # the creator's, over the manifest


@dataclass(frozen=True, slots=True)
class Ticked:
    """The deadline has come."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Say goodbye; the driver closes the links once the effects are carried out."""


Event = (
    Restored
    | LinkUp
    | LinkDown
    | DialFailed
    | Received
    | Written
    | Stored
    | StoreFailed
    | Fetched
    | FetchFailed
    | Kept
    | KeepFailed
    | Learned
    | LearnFailed
    | Held
    | Unheld
    | Joined
    | Addressed
    | Discovered
    | Remembered
    | Injected
    | Ticked
    | StopRequested
)
