"""What a peer looks like from outside: an immutable snapshot, cheap to take, safe to show.

Ids are full hexadecimal text; whoever shows them shortens them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = [
    "DropStatus",
    "KnownStatus",
    "LinkStatus",
    "MemberStatus",
    "RouteStatus",
    "Status",
    "WalkerStatus",
]


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link to a neighbour."""

    link: int
    peer: str
    address: str
    outbound: bool
    cost: int  # unit 10 us
    silent_us: int  # since the last frame from there
    active: bool = True  # False: its other end is no neighbour yet
    reach: tuple[str, ...] = ()  # where it can be dialled, as far as it is known


@dataclass(frozen=True, slots=True)
class KnownStatus:
    """One peer that could become a neighbour."""

    peer: str
    addresses: tuple[str, ...]
    age_us: int  # of its newest record
    tries: int  # dials that failed since
    reason: str  # of the last failure


@dataclass(frozen=True, slots=True)
class DropStatus:
    """One neighbour that is none any more."""

    peer: str
    address: str
    reason: str
    ago_us: int


@dataclass(frozen=True, slots=True)
class MemberStatus:
    """What a peer knows of others, beside its links."""

    open: bool = False  # it chooses its neighbours itself
    known: tuple[KnownStatus, ...] = ()
    dropped: tuple[DropStatus, ...] = ()  # oldest first, the last 32
    unreachable: Mapping[str, str] = field(default_factory=dict)  # the owner's address -> reason
    lost: int = 0  # neighbours that failed and are dialled again
    remembered: int = 0  # good peers, kept for the next start
    records: int = 0
    rumours: int = 0
    patience: int = 1  # times by which waits for others are stretched


@dataclass(frozen=True, slots=True)
class RouteStatus:
    """One selected route to a holder of a data name."""

    name: str
    holder: str
    via: str  # neighbour's id; empty where this peer is the holder
    metric: int  # unit 10 us
    hops: int
    seqno: int
    samples: int
    labels: tuple[int, ...] = ()  # share of each label in 1/20, where the holder tells it


@dataclass(frozen=True, slots=True)
class WalkerStatus:
    """One walker that this peer knows of."""

    walker: str
    role: str  # own, held, shadow, released, done, fenced
    activity: str  # one phrase: "training layers 2:4 on digits/train"
    mode: str
    epoch: int
    hop: int
    seq: int
    lap: int
    laps: int
    home: str
    heir: str = ""  # the walker whose version has seen what this one has, too: itself, or a sibling
    siblings: int = 0  # of how many others it is one


@dataclass(frozen=True, slots=True)
class Status:
    """The whole peer."""

    peer: str
    network: str
    links: tuple[LinkStatus, ...]
    routes: tuple[RouteStatus, ...]
    walkers: tuple[WalkerStatus, ...]
    holdings: Mapping[str, int]  # data name -> samples
    circuits: int
    objects: int
    counters: Mapping[str, int] = field(default_factory=dict)
    members: MemberStatus = field(default_factory=MemberStatus)
