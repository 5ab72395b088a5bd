"""The peer: one door for everything that happens, one list for everything it wants done.

Rules of this file: it owns the parts and routes between them; tables remember and answer, and
decide nothing about each other. `handle` never raises on what a remote sent.
Source: ARCHITECTURE.md; spec/*.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import assert_never

from mfd.core import ways
from mfd.core.choice import Choice
from mfd.core.circuit import Channel, Listener
from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.courier import Courier
from mfd.core.custody import Version, Walker
from mfd.core.effects import Effect
from mfd.core.errands import Errands
from mfd.core.events import (
    Addressed,
    CommandFailed,
    DialFailed,
    Discovered,
    Event,
    Fetched,
    FetchFailed,
    Held,
    Injected,
    Joined,
    KeepFailed,
    Kept,
    Learned,
    LearnFailed,
    LinkDown,
    LinkUp,
    Received,
    Remembered,
    Restored,
    StopRequested,
    Stored,
    StoreFailed,
    Ticked,
    Unheld,
    Written,
)
from mfd.core.exchange import Exchange
from mfd.core.frames import (
    Bye,
    Class,
    Credit,
    Data,
    End,
    Found,
    Frame,
    Member,
    Open,
    Opened,
    Ping,
    Pong,
    Reset,
    Seek,
    SeqnoRequest,
    Update,
    Via,
    decode_frame,
    encode_frame,
)
from mfd.core.handover import Handover
from mfd.core.holding import Holdings
from mfd.core.journey import Journey
from mfd.core.lease import Leases
from mfd.core.membership import Membership
from mfd.core.messages import Message
from mfd.core.names import peer_name
from mfd.core.notices import Notices
from mfd.core.post import Post
from mfd.core.rates import MESSAGES, UPDATE, Rates
from mfd.core.reception import Reception
from mfd.core.routing import Routes, Source
from mfd.core.seals import Sealer, Seals
from mfd.core.seek import Seeker
from mfd.core.sources import is_member
from mfd.core.status import Status
from mfd.core.transfer import Circuits
from mfd.core.walkers import Walkers
from mfd.packet.errors import PacketError
from mfd.packet.signing import Signer, Verifier

__all__ = ["Peer"]


class Peer:
    """One peer as a value machine: same state, event, time and dice give the same effects."""

    def __init__(
        self,
        *,
        signer: Signer,
        verify: Verifier,
        config: Config,
        seed: bytes,
        sealer: Sealer | None = None,
    ) -> None:
        self._ctx = ctx = Context(signer=signer, verify=verify, config=config, seed=seed)
        self.id = signer.public_key
        self._holdings = Holdings()
        self._routes: Routes | None = None  # until the store is open
        self._announced = False
        self._seals = Seals(ctx, lambda: self._circuits, sealer, self._accept)
        self._seeker = Seeker(ctx, lambda: self._routes)
        self._trails = ways.Trails(ctx, self._seeker, lambda: self._routes)
        self._circuits = Circuits(ctx, self._next_hop, self._seals.accept, self._trails)
        self._members = Membership(
            ctx,
            counts=self._link_counts,
            ends=self._link_ends,
            carries=self._circuits.carries,
        )
        self._trails.reach = self._members.far.reach
        self._members.far.begins, self._members.far.ends = self._carries, self._circuits.link_down
        self._seeker.whereabouts = self._seals.whereabouts = self._members.whereabouts
        self._rates = Rates(ctx, self._members.close)
        self._walkers = Walkers(ctx)
        self._courier = Courier(ctx, lambda: self._seals, self._via, self._deliver)
        self._courier.takes = lambda link: self._rates.take(link, MESSAGES)
        self._exchange = Exchange(ctx, lambda: self._seals, self._via)
        self._leases = Leases(ctx, self._walkers, self._courier)
        self._handover = Handover(ctx, self._walkers, self._courier, self._exchange, self._leases)
        self._reception = Reception(ctx, self._walkers, self._courier, self._exchange, self._leases)
        self._errands = Errands(ctx, self._walkers, self._courier, self._exchange, self._holdings)
        self._notices = Notices(ctx, self._walkers, self._courier)
        self._journey = Journey(
            ctx,
            self._walkers,
            notices=self._notices,
            handover=self._handover,
            errands=self._errands,
            leases=self._leases,
            choice=Choice(ctx, self._holders, self._seeker, self._holdings, self._walkers),
        )
        self._post = Post(
            ctx,
            handover=self._handover,
            reception=self._reception,
            leases=self._leases,
            errands=self._errands,
            notices=self._notices,
        )
        self._reception.traveller = self._journey
        self._leases.reissuer = self._journey
        self._members.tidings.deliver = self._leases.on_broadcast
        self._members.tidings.expel = self._expel
        self._leases.broadcast = self._members.tidings.spread
        self._routes_due_us: int | None = None

    # the door

    def handle(self, event: Event, now_us: int) -> list[Effect]:
        """Take in what happened at `now_us`; return what is to be done, in order.

        Raises: CommandFailed for a local command that cannot be carried out; nothing else.
        """
        ctx = self._ctx
        ctx.now_us = max(now_us, ctx.now_us)
        ctx.run_timers()
        try:
            self._dispatch(event)
        finally:
            self._settle()
        return ctx.take()

    def deadline_us(self) -> int | None:
        """When to call `handle(Ticked(), ...)` at the latest."""
        return self._ctx.deadline_us()

    def _dispatch(self, event: Event) -> None:
        match event:
            case Received(link=link, frame=buffer):
                self._received(link, buffer)
            case Ticked():
                pass  # the timers have run
            case Written(link=link, size=size):
                self._circuits.written(link, size)
            case (Stored() | StoreFailed() | Fetched() | FetchFailed() | Kept() | KeepFailed()) | (
                Learned() | LearnFailed()
            ):
                self._ctx.answer(event)
            case LinkUp():
                self._known_routes()
                self._members.link_up(event)
                self._rates.link_up(event)
            case LinkDown(link=link, reason=reason):
                self._members.link_down(link, reason)
                self._rates.link_down(link)
            case DialFailed():
                self._members.dial_failed(event)
            case Restored():
                self._restored(event)
            case Held():
                self._hold(event)
            case Unheld(name=name):
                self._holdings.unhold(self._known_routes(), name, self._ctx.now_us)
            case Joined(address=address):
                self._members.join(address)
            case Addressed(addresses=addresses):
                self._members.presence.addressed(addresses)
            case Discovered(peer=peer, address=address):
                self._members.discovered(peer, address)
            case Remembered(peers=peers):
                self._members.remembered(peers)
            case Injected():
                self._inject(event)
            case StopRequested():
                self._members.stop()
                for link in self._members.neighbours:
                    self._ctx.send(link, encode_frame(Bye("stopping")))
            case _:
                assert_never(event)

    def _settle(self) -> None:
        """After every event: announce ourselves while walkers depend on us, send routing news."""
        routes, now_us = self._routes, self._ctx.now_us
        if routes is None:
            return
        wanted = self._walkers.depend_on_us
        if wanted != self._announced:
            self._announced = wanted
            if wanted:
                routes.hold(peer_name(self.id), 0, now_us)
            else:
                routes.unhold(peer_name(self.id), now_us)
        appeared = routes.take_appeared()
        if appeared:
            self._journey.appeared(appeared)
        for link, frame in routes.outgoing(now_us):
            if link in self._members.neighbours:
                self._ctx.send(link, encode_frame(frame))
                self._members.whereabouts.note(link, frame)
        due_us = routes.deadline_us()
        if due_us is not None and due_us != self._routes_due_us:
            self._routes_due_us = due_us
            self._ctx.at(due_us, lambda: None)  # waking is enough: `_settle` follows every event

    def _known_routes(self) -> Routes:
        if self._routes is None:
            raise CommandFailed("the store of this peer is not open yet")
        return self._routes

    def _restored(self, event: Restored) -> None:
        ctx, boot = self._ctx, event.boot
        self._routes = Routes(self.id, ctx.config, signer=ctx.signer, verify=ctx.verify, boot=boot)
        self._routes.void = self._members.tidings.void
        self._members.restored(boot)
        self._members.tidings.restore(event.records)
        self._members.tidings.revoke(ctx.config.revoked)
        self._walkers.restore(event.records, event.objects)
        for walker in self._walkers:
            self._reception.restored(walker)

    def _hold(self, held: Held) -> None:
        routes, now_us = self._known_routes(), self._ctx.now_us
        if not is_member(self._ctx.config, self.id, self._ctx.verify):
            raise CommandFailed("nobody takes what this peer announces: it has no token")
        try:
            self._holdings.hold(routes, held.name, held.samples, now_us, labels=held.labels)
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        for walker in self._walkers:
            self._journey.advance(walker)

    def _inject(self, event: Injected) -> None:
        """Become the first owner of a walker that a user made. Raises: CommandFailed."""
        self._known_routes()
        walker, version = self._walkers.begin(event)
        self._walkers.save(
            walker, objects=tuple(version.objects), then=partial(self._injected, walker)
        )

    def _injected(self, walker: Walker) -> None:
        self._ctx.report("injected", walker=walker.id.hex(), mode=walker.plan.mode)
        self._journey.advance(walker)

    def _expel(self, member: bytes) -> None:
        """A peer's token is void: it holds nothing any more that others may know of."""
        self._seeker.forget(member)
        if self._routes is not None:
            self._routes.expel(member, self._ctx.now_us)

    # links and frames

    def _link_counts(self, up: LinkUp) -> None:
        if up.link not in self._members.far:
            self._carries(up)
        self._seeker.link_up(up.link, up.peer, up.cost)
        self._known_routes().link_up(up.link, up.cost, self._ctx.now_us, peer=up.peer)

    def _carries(self, up: LinkUp) -> None:
        """Let circuits go over a link."""
        self._circuits.link_up(
            up.link, up.peer, outbound=up.outbound, paced=up.paced, private=up.private
        )

    def _link_ends(self, link: int) -> None:
        self._seeker.link_down(link)
        self._known_routes().link_down(link, self._ctx.now_us)
        self._circuits.link_down(link)  # last: who listens to a circuit asks the others

    def _received(self, link: int, buffer: bytes | bytearray | memoryview) -> None:
        if link not in self._members.neighbours:
            return
        self._members.heard(link)
        if len(buffer) and buffer[0] != UPDATE and not self._rates.take(link, buffer[0]):
            return
        try:
            self._frame(link, decode_frame(buffer))
        except PacketError as error:
            self._ctx.count(f"frames_refused_{error.fault.name.lower()}")
            self._members.close(link, f"a frame is not valid: {error}")

    def _frame(self, link: int, frame: Frame) -> None:
        match frame:
            case Data() | Credit() | Open() | Opened() | End() | Reset():
                if self._members.may_carry(link):
                    self._circuits.on_frame(link, frame)
            case Member():
                self._members.on_frame(link, frame)
            case Ping():
                self._members.on_ping(link, frame)
            case Pong():
                pass  # hearing it was enough
            case Bye(reason=reason):
                self._members.close(link, f"the neighbour says: {reason}")
            case _ if not self._members.counts_now(link):
                self._ctx.count("frames_of_strangers")
            case Update(body=body):
                strangers = self._known_routes().strangers(body)
                if not self._rates.take_update(link, len(body), strangers):
                    return  # its differences are lost, so the link has ended
                entries = self._members.whereabouts.heed(link, body)
                self._known_routes().update(link, entries, self._ctx.now_us)
            case SeqnoRequest(body=body):
                self._known_routes().request(link, body, self._ctx.now_us)
            case Seek(body=body):
                self._seeker.on_seek(link, body)
            case Found(body=body):
                self._seeker.on_found(link, body)
            case _:
                assert_never(frame)

    # ways

    def _next_hop(self, via: Via, cls: Class) -> tuple[int, Via] | None:
        return ways.next_hop(self._known_routes(), via, cls)

    def _via(self, peer: bytes, cls: Class) -> Via | None:
        return self._trails.via(self._known_routes(), peer, cls)

    def _holders(self, names: Sequence[str]) -> list[Source]:
        return ways.holders(self._known_routes(), names, self._seeker)

    def _accept(self, circuit: Channel, hello: bytes) -> Listener:
        if circuit.cls is Class.THIN:
            return self._courier.accept(circuit)
        return self._exchange.accept(circuit, hello)

    def _deliver(self, message: Message) -> None:
        self._post.deliver(message)

    # what it looks like

    def status(self) -> Status:
        """Take a snapshot for the owner of this peer."""
        return Status(
            peer=self.id.hex(),
            network=self._ctx.config.network,
            links=self._members.links(),
            routes=self._routes.snapshot() if self._routes else (),
            walkers=self._walkers.status(),
            holdings=dict(self._holdings),
            circuits=len(self._circuits),
            objects=len(self._walkers.objects),
            counters=dict(self._ctx.counters),
            members=self._members.status(),
        )

    @property
    def members(self) -> Membership:
        """Views, records and rumours, to be looked at."""
        return self._members

    def version(self, walker_id: bytes) -> Version | None:
        """The newest version of a walker kept here, whatever this peer's role."""
        walker = self._walkers.get(walker_id)
        return walker.version if walker else None
