"""What the core does wrong when one of its rules is taken away: the pieces of ablations.py.

Rules of this file: nothing here is called unless an ablation puts it in the place of what it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from blake3 import blake3

from mfd.core import epochs, ways
from mfd.core.ages import Ages
from mfd.core.certificates import open_certificate, seal_certificate
from mfd.core.commits import Commits
from mfd.core.context import Dice
from mfd.core.custody import Role, Walker
from mfd.core.frames import SeqnoRequest, decode_frame
from mfd.core.handover import BUSY, Handover
from mfd.core.messages import Kind
from mfd.core.peering import Peering
from mfd.core.presence import Presence
from mfd.core.reception import Reception
from mfd.core.recordbook import RecordBook
from mfd.core.routetable import RouteTable
from mfd.core.routing import Routes
from mfd.core.sources import open_record
from mfd.core.transfer import Circuits
from mfd.core.views import Views
from mfd.core.walkers import Walkers
from mfd.packet.signing import Verifier

__all__ = [
    "announce_only_once",
    "any_seq",
    "believe",
    "careless",
    "eager",
    "ended_too",
    "favouring",
    "forgetful_why_not",
    "fragile",
    "generous",
    "idle_unbound",
    "impatient",
    "near",
    "never_expire",
    "never_sure",
    "nothing",
    "orphans",
    "promote",
    "roomy",
    "same_promise",
    "same_seq",
    "secretly",
    "sign_once",
    "still_hoping",
    "ties_by_self",
    "twice",
    "unseeded",
    "without_mark",
    "without_retractions",
]


def nothing(*_: object, **__: object) -> None:
    """Do nothing."""


# routing


def ties_by_self(table: RouteTable, route: Any) -> tuple[Any, ...]:
    """Rank equals by an order that differs from peer to peer."""
    return (route.metric, blake3(table.me + route.record.holder).digest())


_take_retraction = Routes._take_retraction


def impatient(routes: Routes, link: int, name: str, holder: bytes, mask: int) -> Any:
    """Ask at once for whatever a neighbour takes back, pruned or lost."""
    state = routes._table.find(name, holder)
    if state is not None:
        body = [name, holder, state.newest.seqno + 1, 0, 64]
        routes._requests.append((link, SeqnoRequest(body)))
        routes._table.wake(0)
    return _take_retraction(routes, link, name, holder, mask)


def idle_unbound(table: RouteTable, state: Any, now_us: int) -> bool:
    """Let a source go though what was said of it still binds."""
    return not (state.adverts or any(state.best))


_updates = RouteTable.updates


def without_retractions(table: RouteTable, now_us: int) -> list[tuple[int, list[Any]]]:
    """Word what is new, and not what is over."""
    bodies = [(link, [e for e in body if len(e) == 4]) for link, body in _updates(table, now_us)]
    return [(link, body) for link, body in bodies if body]


def announce_only_once(routes: Routes, now_us: int) -> None:
    """Expire what is heard; a holder whose record is old does not renew it."""
    held = routes._origin._own
    own = dict(held)
    held.clear()
    try:
        _sweep(routes, now_us)
    finally:
        held.update(own)


_sweep = Routes._sweep


def never_expire(routes: Routes, now_us: int) -> None:
    """Look for expired records too late to find any."""
    routes._sweep_us = now_us + routes._config.record_valid_us


def believe(routes: Routes, sealed: bytes) -> Any:
    """Open a record whoever has signed it."""
    try:
        return open_record(sealed, routes._config.network, lambda *_: True)
    except ValueError:
        return None


def never_sure(routes: Routes, sealed: bytes) -> Any:
    """Check a record anew each time that it is told, by everybody."""
    for _ in range(99):
        routes._opened.pop(sealed, None)
        _open(routes, sealed)
    return _open(routes, sealed)


_open = Routes.open


# circuits


_next_hop = ways.next_hop


def same_promise(routes: Routes, way: Any, cls: Any) -> Any:
    """Pass on what was promised to us in place of our own promise."""
    hop = _next_hop(routes, way, cls)
    return None if hop is None else (hop[0], way if way.metric < ways.UNBOUND else hop[1])


def generous(circuits: Circuits, link: int, frame: Any) -> None:
    """Count each byte of credit four times."""
    _on_credit(circuits, link, replace(frame, amount=frame.amount * 4))


_on_credit = Circuits.on_credit


# custody


def forgetful_why_not(reception: Reception, walker: Any, position: Any) -> Any:
    """Judge an offer as if nothing had been here before."""
    mark, walker.high_water = walker.high_water, (0, b"", 0)
    try:
        return _why_not(reception, walker, position)
    finally:
        walker.high_water = mark


_why_not = Reception._why_not


def without_mark(method: Callable[..., None]) -> Callable[..., None]:
    """Wrap a method so that it sees no high-water mark."""

    def call(reception: Reception, first: Any, *rest: Any) -> None:
        low = (0, b"", 0)
        marks = [(w, w.high_water) for w in reception._walkers]
        for walker, _ in marks:
            walker.high_water = low
        method(reception, first, *rest)
        for walker, mark in marks:
            if walker.high_water == low:
                walker.high_water = mark

    return call


_proves = epochs.proves


def near(chain: Sequence[bytes], walker: Walker, verify: Verifier) -> bool:
    """Believe newer certificates only where the receiver's own branch leads to the second one."""
    if not _proves(chain, walker, verify):
        return False
    older = open_certificate(chain[-1], verify)
    return chain[-1] in walker.certificates or older.position >= walker.high_water


def favouring(reception: Reception, walker: Any, position: Any) -> Any:
    """Have no slot for half of the walkers, ever."""
    return (BUSY, "no free slot") if walker.id[0] % 2 else _why_not(reception, walker, position)


def promote(reception: Reception, walker: Any, held: Any) -> None:
    """Own what was only offered."""
    walker.role, walker.version, walker.held = Role.OWN, held.version, None
    walker.high_water = held.position
    reception._walkers.save(walker, then=nothing)


_save = Walkers.save


def eager(
    walkers: Walkers, walker: Any, *, then: Callable[[], object], objects: tuple[bytes, ...] = ()
) -> None:
    """Go on at once, and store afterwards."""
    then()
    _save(walkers, walker, then=nothing, objects=objects)


_granted = Handover._granted


def careless(handover: Handover, offer: Any, ref: bytes, nonce: bytes, record: bytes) -> None:
    """Grant, and keep nothing."""
    _granted(handover, offer, ref, nonce, record)
    offer.walker.role, offer.walker.version = Role.RELEASED, None
    handover._walkers.save(offer.walker, then=nothing)


def twice(handover: Handover, offer: Any, ref: bytes, nonce: bytes, record: bytes) -> None:
    """Grant, and grant again with other words."""
    _granted(handover, offer, ref, nonce, record)
    other = replace(open_certificate(record, handover._ctx.verify), lease_us=1)
    forged = seal_certificate(other, handover._ctx.signer)
    walker = offer.walker
    walker.certificates = (forged, record)

    def grant() -> None:
        handover._courier.send(offer.target, Kind.GRANT, ref, nonce, forged)

    handover._walkers.save(walker, then=grant)


_commit = Commits.commit


def orphans(commits: Commits, walker: Any, version: Any, manifest: Any, *rest: Any) -> None:
    """Commit a version without its parents."""
    _commit(commits, walker, version, replace(manifest, parents=()), *rest)


def same_seq(commits: Commits, walker: Any, version: Any, manifest: Any, *rest: Any) -> None:
    """Commit every version as number 1."""
    older = replace(version, manifest=replace(version.manifest, seq=0))
    _commit(commits, walker, older, replace(manifest, seq=0), *rest)


def first(versions: Sequence[Ages]) -> dict[bytes, tuple[int, ...]]:
    """Join the ages of several versions by taking those of one."""
    return dict(versions[0])


# membership and gossip


def roomy(peering: Peering, link: int, *, urgent: bool) -> bool:
    """Take everybody in."""
    peering._links.activate(link)
    return True


def secretly(peering: Peering, slot: Any) -> None:
    """Count a neighbour no more, and say nothing to it."""
    members: Any = peering._links
    members.neighbours[slot.link].asked = None  # its news are no late answer
    members._deactivate(slot.link, "room was made for another peer")


def still_hoping(views: Views, peer: bytes, link: int, *, outbound: bool) -> None:
    """Make a neighbour of a passive peer, and keep it as a hope."""
    hope = views._passive.get(peer)
    _activate(views, peer, link, outbound=outbound)
    if hope is not None:
        views._passive[peer] = hope


_activate = Views.activate


def any_seq(book: RecordBook, item: Any, now_us: int) -> Any:
    """Take what has come last for the newest."""
    known = book._entries.pop(bytes(item[0][:32]), None)
    record = _learn(book, item, now_us)
    if record is None and known is not None:
        book._entries[known.record.peer] = known
    return record


_learn = RecordBook.learn


def ended_too(book: RecordBook, peer: bytes, now_us: int) -> Any:
    """Give out records that have ended."""
    return book._entries.get(peer)


def sign_once(presence: Presence) -> None:
    """A peer whose record is never made anew."""
    presence._sign()


# the door


def fragile(buffer: Any) -> Any:
    """Raise something else than the error that is promised."""
    try:
        return decode_frame(buffer)
    except ValueError as error:
        raise KeyError("this decoder breaks") from error


_bytes = Dice.bytes
_tosses: list[int] = []


def unseeded(dice: Dice, size: int) -> bytes:
    """Chance that goes on from world to world."""
    _tosses.append(size)
    return blake3(_bytes(dice, size) + len(_tosses).to_bytes(8, "little")).digest(size)
