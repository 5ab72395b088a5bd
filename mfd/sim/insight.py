"""What checkers read inside a peer: the one place that knows its private parts.

Rules of this file: it reads and changes nothing. A liar is seen as the honest peer inside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from mfd.core.circuit import Circuit
from mfd.core.custody import Walker
from mfd.core.frames import Class
from mfd.core.membership import Membership
from mfd.core.peer import Peer
from mfd.core.recordbook import Entry
from mfd.core.routestate import Distance, Neighbour, Route, State, by_class
from mfd.core.sources import Record

__all__ = [
    "Sigma",
    "believed",
    "carries",
    "chosen_advert",
    "circuits",
    "counter",
    "delivered",
    "far_links",
    "feasibility",
    "links",
    "listens",
    "members",
    "neighbour_tables",
    "offers",
    "own_seqno",
    "selected",
    "sizes",
    "sources",
    "state_of",
    "walkers",
]


class Sigma(NamedTuple):
    """A source in one class: what one next-hop graph is about."""

    name: str
    holder: bytes
    cls: int


def _inner(peer: Peer) -> Any:
    return getattr(peer, "honest", peer)


def links(peer: Peer) -> dict[int, bytes]:
    """Return the links that a peer believes in, with the neighbour's id."""
    return {link: n.up.peer for link, n in _inner(peer)._members.neighbours.items()}


def members(peer: Peer) -> Membership:
    """Return views, records and rumours."""
    found: Membership = _inner(peer).members
    return found


def watch_book(peer: Peer, tell: Callable[[Entry], None]) -> None:
    """Have every record that the peer enters in its book told of, for its present life."""
    book = members(peer).book
    before = book.news

    def news(of: bytes) -> None:
        tell(book.view()[of])
        before(of)

    book.news = news


def delivered(peer: Peer) -> int:
    """Return how many rumours a peer has taken from others in this life."""
    return counter(peer, "rumours_heard")


def counter(peer: Peer, name: str) -> int:
    """Return one of the counters that a peer shows its owner."""
    return int(_inner(peer)._ctx.counters.get(name, 0))


def sources(peer: Peer) -> Mapping[str, Mapping[bytes, State]]:
    """Return what a peer knows of each source, by data name, by holder: its very table."""
    routes = _inner(peer)._routes
    return {} if routes is None else routes._table.names


def selected(peer: Peer, data: str | None = None) -> dict[Sigma, Route]:
    """Return the selected route of every source and class, or of those of one name."""
    known = sources(peer)
    return {
        Sigma(name, holder, cls): route
        for name in (known if data is None else (data,))
        for holder, state in known.get(name, {}).items()
        for cls, route in enumerate(state.best)
        if route is not None
    }


def believed(peer: Peer) -> Iterator[Record]:
    """Return the newest record of every source that is known of others, and told to neighbours."""
    inner = _inner(peer)
    routes = inner._routes
    for states in routes._table.names.values() if routes is not None else ():
        for holder, state in states.items():
            if holder != inner.id and any(state.best):
                yield state.newest


def far_links(peer: Peer) -> list[int]:
    """Return the links to far peers."""
    return list(_inner(peer)._members.far._used_us)


def carries(peer: Peer, link: int) -> bool:
    """Whether circuits use a link."""
    return bool(_inner(peer)._circuits.carries(link))


def own_seqno(peer: Peer, name: str) -> int | None:
    """Return the seqno that a peer last signed for a name of its own."""
    routes = _inner(peer)._routes
    seqno: int | None = None if routes is None else routes._origin._seqnos.get(name)
    return seqno


def state_of(peer: Peer, name: str, holder: bytes) -> State | None:
    """Return what a peer knows of a source."""
    return sources(peer).get(name, {}).get(holder)


def feasibility(peer: Peer, name: str, holder: bytes) -> Sequence[Distance | None]:
    """Return the feasibility distances that a peer keeps, by class."""
    state = state_of(peer, name, holder)
    return by_class() if state is None else state.feasibility


def chosen_advert(peer: Peer, sigma: Sigma, link: int) -> Route | None:
    """Return what a neighbour says of a source."""
    state = state_of(peer, sigma.name, sigma.holder)
    adverts = None if state is None else state.adverts.get(link)
    return None if adverts is None else adverts[sigma.cls]


def neighbour_tables(peer: Peer) -> dict[int, Neighbour]:
    """Return routing's view of the neighbours, by link."""
    routes = _inner(peer)._routes
    return {} if routes is None else dict(routes._table.links)


def walkers(peer: Peer) -> list[Walker]:
    """Return the records of walkers."""
    return list(_inner(peer)._walkers)


def offers(peer: Peer) -> dict[bytes, tuple[bytes, tuple[int, bytes]]]:
    """Return the offers that a peer has made and not given up: ref -> (walker, epoch)."""
    made = _inner(peer)._handover._offers.values()
    return {offer.ref: (offer.walker.id, offer.position[:2]) for offer in made}


def listens(peer: Peer, link: int, label: int) -> bool:
    """Whether a circuit of a link ends at this peer, and stands."""
    circuit = _inner(peer)._circuits._links.get(link, {}).get(label)
    return circuit is not None and circuit.open and circuit.listener is not None


def circuits(peer: Peer) -> Iterator[tuple[int, Circuit]]:
    """Return every circuit once for each link that it uses."""
    for link, table in _inner(peer)._circuits._links.items():
        for circuit in table.values():
            yield link, circuit


def sizes(peer: Peer) -> dict[str, tuple[int, int]]:
    """Return the size of every table beside its limit."""
    inner = _inner(peer)
    config = inner._ctx.config
    out = {
        "links": (len(inner._members.neighbours), config.links_max),
        "walkers": (len(inner._walkers._walkers), 4_096),
        "timers": (len(inner._ctx._heap), 65_536),
        "answers": (len(inner._ctx._pending), 65_536),
    }
    if far := [inner._members.neighbours[link].up for link in inner._members.far._used_us]:
        dialled = sum(up.outbound for up in far)
        out["far links that it dialled"] = (dialled, config.far_links_max)
        out["far links that others dialled"] = (len(far) - dialled, config.far_links_max)
    if inner._routes is not None:
        table = inner._routes._table
        adverts = max((n.adverts for n in table.links.values()), default=0)
        own = len(inner._routes._origin._own)  # what this peer holds itself comes on top
        out["names"] = (len(table.names), config.names_max + own)
        out["sources"] = (table.count, config.sources_max + own)
        out["adverts of a neighbour"] = (adverts, config.adverts_per_link_max)
    per_link: dict[tuple[int, Class], int] = {}
    for link, circuit in circuits(peer):
        per_link[link, circuit.cls] = per_link.get((link, circuit.cls), 0) + 1
    for (_, cls), count in per_link.items():
        thin = cls is Class.THIN
        # what neighbours open is limited; what this peer opens comes on top, as much again
        limit = 2 * (config.thin_per_link_max if thin else config.bulk_per_link_max)
        kind = f"{cls.name.lower()} circuits of a link"
        out[kind] = (max(count, out.get(kind, (0, 0))[0]), limit)
    return out
