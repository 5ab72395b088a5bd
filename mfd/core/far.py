"""Links to far peers: dialled by the address in their record, for circuits alone, for a while.

    a: Call(record) -> b: Called(yes or no, record)       then circuits, pings, and nothing else

Rules of this file: only where everybody can dial everybody. A bounded number each way; a link that
carries no circuit ends. Far links are in no view: routing, SEEK and gossip do not know them.
Source: spec/membership.md, section "Far peers".
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial

from mfd.core.context import Context
from mfd.core.dials import Dials, Purpose, backoff_us
from mfd.core.events import LinkUp
from mfd.core.memberframes import Call, Called, encode_member
from mfd.core.peering import Links, Neighbour, Peering
from mfd.core.recordbook import RecordBook
from mfd.core.records import Item, dial_line
from mfd.packet.errors import Fault, PacketError

__all__ = ["FarLinks"]

TRIED_MAX = 256  # peers whose dials are remembered; the oldest are forgotten first


@dataclass(slots=True)
class _Try:
    """The last dial of a far peer."""

    until_us: int  # so long it is waited for
    tries: int = 0  # that came to nothing, one after the other
    retry_us: int = 0


class FarLinks:
    """The far links of one peer."""

    def __init__(self, ctx: Context, links: Links, peering: Peering, dials: Dials) -> None:
        self._ctx = ctx
        self._links = links
        self._peering = peering
        self._dials = dials
        self._tried: dict[bytes, _Try] = {}
        self._used_us: dict[int, int] = {}  # far links, and when each last carried a circuit
        self._sweeping = False
        self.book: RecordBook
        self.begins: Callable[[LinkUp], None] = lambda up: None
        self.ends: Callable[[int], None] = lambda link: None

    def __contains__(self, link: int) -> bool:
        return link in self._used_us

    def _count(self, *, outbound: bool) -> int:
        neighbours = self._links.neighbours
        return sum(neighbours[link].up.outbound is outbound for link in self._used_us)

    # dialling

    def reach(self, peer: bytes) -> bool:
        """Dial a peer that is needed, if that may help; say whether it is worth waiting for."""
        ctx, now_us = self._ctx, self._ctx.now_us
        if not ctx.config.open_network or peer == ctx.me:
            return False
        known = self._tried.get(peer)
        if known is not None and now_us < max(known.until_us, known.retry_us):
            return now_us < known.until_us
        if any(n.up.peer == peer for n in self._links.neighbours.values()):
            return False
        entry = self.book.get(peer, now_us)
        waiting = sum(t.until_us > now_us for t in self._tried.values())
        full = self._count(outbound=True) + waiting >= ctx.config.far_links_max
        if entry is None or not entry.record.addresses or full:
            return False
        tries = known.tries if known is not None else 0
        addresses = entry.record.addresses
        line = dial_line(ctx.config.network, peer, addresses[tries % len(addresses)])
        if not self._dials.dial(line, Purpose.FAR, peer):
            return False
        ctx.count("far_dials")
        self._tried.pop(peer, None)
        self._tried[peer] = _Try(now_us + ctx.config.far_dial_us, tries)
        if len(self._tried) > TRIED_MAX:
            del self._tried[next(iter(self._tried))]
        return True

    def failed(self, peer: bytes) -> None:
        """It does not answer, or has no room: leave it alone, each time for twice as long."""
        known = self._tried.get(peer)
        if known is not None:
            known.tries += 1
            most_us = self._ctx.config.dial_max_us
            known.until_us = 0
            known.retry_us = self._ctx.now_us + backoff_us(self._ctx, known.tries, most_us)

    def greet(self, link: int, neighbour: Neighbour) -> None:
        """A link stands that was dialled for this."""
        me = self._me()
        if me is not None:
            self._ctx.send(link, encode_member(Call(me)))
        self._ctx.after(self._ctx.config.visit_us, partial(self._unanswered, link, neighbour))

    def _unanswered(self, link: int, neighbour: Neighbour) -> None:
        if self._links.neighbours.get(link) is neighbour and not (
            neighbour.active or link in self._used_us
        ):
            self.failed(neighbour.up.peer)
            self._links.close(link, "it did not answer the call")

    def _me(self) -> Item | None:
        return self.book.item(self._ctx.me, self._ctx.now_us)

    # calling

    def on_call(self, link: int, frame: Call) -> None:
        """A far peer wants circuits with us. Raises: PacketError."""
        neighbour, config = self._links.neighbours[link], self._ctx.config
        self._learn(link, frame.item)
        me = self._me()
        if neighbour.active or neighbour.up.outbound or link in self._used_us or me is None:
            self._ctx.count("calls_out_of_place")
            return
        room = self._count(outbound=False) < config.far_links_max
        accepted = config.open_network and room
        self._ctx.send(link, encode_member(Called(accepted, me)))
        if accepted:
            self._begin(link, neighbour)
        else:
            self._links.close(link, "there is no room for far links")

    def on_called(self, link: int, frame: Called) -> None:
        """What a far peer says to our call. Raises: PacketError."""
        neighbour = self._links.neighbours[link]
        self._learn(link, frame.item)
        if neighbour.asked is not Purpose.FAR or neighbour.active or link in self._used_us:
            self._ctx.count("calls_out_of_place")
        elif frame.accepted:
            self._tried.pop(neighbour.up.peer, None)
            self._begin(link, neighbour)
        else:
            self.failed(neighbour.up.peer)
            self._links.close(link, "it has no room for far links")

    def _learn(self, link: int, item: Item) -> None:
        if item[0][:32] != self._links.neighbours[link].up.peer:
            raise PacketError(Fault.FIELD, "record of another peer")
        self.book.learn(item, self._ctx.now_us)

    def _begin(self, link: int, neighbour: Neighbour) -> None:
        neighbour.asked = None
        self._used_us[link] = self._ctx.now_us
        self._ctx.count("far_links")
        self.begins(neighbour.up)
        if not self._sweeping:
            self._sweep_later()

    # ending

    def end(self, link: int) -> None:
        """A link is gone, or about to go; harmless for any other than a far one."""
        if self._used_us.pop(link, None) is not None:
            self.ends(link)

    def promoted(self, link: int) -> None:
        """A far link has become one to a neighbour; its circuits go on."""
        self._used_us.pop(link, None)

    def _sweep_later(self) -> None:
        self._sweeping = True
        self._ctx.after(self._ctx.config.far_idle_us // 2, self._sweep)

    def _sweep(self) -> None:
        """End what carries nothing; who has dialled does it first."""
        now_us, idle_us = self._ctx.now_us, self._ctx.config.far_idle_us
        for link, used_us in list(self._used_us.items()):
            outbound = self._links.neighbours[link].up.outbound
            if self._links.busy(link):
                self._used_us[link] = now_us
            elif now_us - used_us >= (idle_us if outbound else 2 * idle_us):
                self._links.close(link, "no circuit needs this far link")
        self._sweeping = False
        if self._used_us:
            self._sweep_later()

    # neighbours after all

    def round(self, *, alone: bool, lost: Collection[bytes]) -> None:
        """Ask far peers to be neighbours where we have none, or where one was a neighbour once."""
        for link in list(self._used_us):
            neighbour = self._links.neighbours[link]
            if (alone or neighbour.up.peer in lost) and neighbour.asked is None:
                self._peering.ask_over(link)
