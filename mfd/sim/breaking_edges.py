"""What the core does wrong when a rule of `ablations_edges` is taken away, and how scenes are set.

Rules of this file: nothing here is called unless an ablation puts it in the place of what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mfd.core.exchange as exchange_module
from mfd.core.antientropy import AntiEntropy
from mfd.core.bases import Named
from mfd.core.bucket import Bucket
from mfd.core.config import Config
from mfd.core.custody import Version, Walker
from mfd.core.far import FarLinks
from mfd.core.frames import Open, ResetCode
from mfd.core.gossip import Gossip
from mfd.core.lease import Leases
from mfd.core.memberframes import MemberFrame, Rumour
from mfd.core.membership import Membership
from mfd.core.messages import Kind
from mfd.core.pace import Pace
from mfd.core.peering import Neighbour
from mfd.core.sources import Record, open_record
from mfd.core.tokens import Void
from mfd.core.transfer import Circuits
from mfd.core.walkers import Walkers
from mfd.packet.objects import LayerObject, pack_layer, unpack_layer
from mfd.packet.signing import Verifier
from mfd.packet.task import LayerRef, LearnTask
from mfd.sim.disk import Disk

__all__ = [
    "all_ears",
    "anybody",
    "at_once",
    "at_will",
    "baseless",
    "befriend",
    "chatty",
    "curious",
    "early",
    "first_named",
    "hardly",
    "shy",
    "sociable",
    "upon_all_the_same",
]


# who is believed


def anybody(sealed: bytes, config: Config, verify: Verifier, void: Void | None = None) -> Record:
    """Open a record whatever its token."""
    return open_record(sealed, config.network, verify)


_compare = AntiEntropy._compare
EARLY_US = 14_000_000


def early(comparing: AntiEntropy, link: int) -> None:
    """Compare notes with neighbours for a while, and no more."""
    if comparing._ctx.now_us < EARLY_US:
        _compare(comparing, link)


# far peers, searches and ways


_begin = FarLinks._begin


def befriend(far: FarLinks, link: int, neighbour: Neighbour) -> None:
    """Count whoever calls as a neighbour."""
    _begin(far, link, neighbour)
    far._links.activate(link)


def at_once(pace: Pace, rank_us: int, action: Callable[[], None]) -> None:
    """Send a ring whatever was sent before."""
    action()


_why_not = Circuits._why_not


def shy(circuits: Circuits, link: int, frame: Open) -> ResetCode | None:
    """A peer in four relays nothing."""
    if circuits._ctx.me[0] % 4 == 0 and frame.target != circuits._ctx.me:
        return ResetCode.STALLED
    return _why_not(circuits, link, frame)


# what one neighbour may cause


_own = Leases.own
AT_WILL = 1e6  # a second, and at once


def at_will(circuits: Circuits, link: int, frame: Open) -> ResetCode | None:
    """Take every OPEN of a neighbour."""
    circuits._opens[link] = Bucket(AT_WILL, AT_WILL)
    return _why_not(circuits, link, frame)


_on_rumour, _from_neighbour = Gossip.on_rumour, Membership._from_neighbour


def all_ears(gossip: Gossip, link: int, frame: Rumour) -> None:
    """Take every rumour of a neighbour."""
    gossip._links[link].takes = Bucket(AT_WILL, AT_WILL)
    _on_rumour(gossip, link, frame)


def sociable(membership: Membership, link: int, frame: MemberFrame) -> None:
    """Take all records of others that a neighbour sends."""
    membership.neighbours[link].takes = Bucket(AT_WILL, AT_WILL)
    _from_neighbour(membership, link, frame)


def chatty(leases: Leases, walker: Walker) -> None:
    """Ask everybody for the walker whenever it has come."""
    _own(leases, walker)
    for number in range(4):
        leases.broadcast(Kind.RECLAIM, walker.id, bytes([number]) * 32)


# differences


def first_named(
    walker: Walker, objects: Mapping[bytes, int], lacks: Sequence[bytes], told: Named
) -> dict[bytes, bytes]:
    """Build upon whatever the receiver has named."""
    pairs = zip(lacks, told, strict=False)
    return {digest: bases[0] for digest, bases in pairs if bases and bases[0] != digest}


_bases = Walkers.bases


def curious(walkers: Walkers, walker: Walker, ref: bytes, version: Version, lacks: Any) -> Named:
    """Name what other walkers have left here."""
    others = {d for w in walkers if w is not walker for d in w.kept()}
    told = [[d for d in others if walkers.objects.get(d) == size][:4] for _, size in lacks]
    return told if any(told) else _bases(walkers, walker, ref, version, lacks)


_resume_point = exchange_module._resume_point


def upon_all_the_same(answer: bytes, objects: Any) -> tuple[int, int, bool]:
    """Go on with differences though the receiver has said that a base is gone."""
    return *_resume_point(answer, objects)[:2], False


def hardly(task: LearnTask, ref: LayerRef, read: Callable[[bytes], Any]) -> LayerObject:
    """Change one number of a layer: a difference to what it was is small."""
    (name, tensor), *_ = unpack_layer(read(ref.digest)).items()
    values = tensor.array().copy()
    values.reshape(-1)[0] += task.seed % 97 + 1
    return pack_layer({name: values})


_keep = Disk.keep


def baseless(disk: Disk, keep: Any) -> Any:
    """A disk on which whatever chunks build upon has gone."""
    return _keep(disk, replace(keep, base=b""))
