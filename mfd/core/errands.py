"""Errands: work that a peer does for the owner of a walker without ever owning it.

    owner                                   other
    ERRAND(version, task) ----------------->        checks, counts what it lacks
    <------------------------ ACCEPT(lacks)
    objects ------------------------------->        learns
    <------------------------ RESULT(claims, new version or nothing)
    ACCEPT(lacks) ------------------------->        only where there is a new version
    <------------------------------ objects

Rules of this file: the owner keeps the walker all the time; an errand may be lost, refused or
repeated without harm.
Source: spec/custody.md, section "Errands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from mfd.core.bases import common
from mfd.core.context import Context, Timer
from mfd.core.courier import Courier
from mfd.core.custody import SEQ_MAX, Version, Walker, open_identity
from mfd.core.exchange import Exchange
from mfd.core.handover import BUSY, PARTS, UNFIT
from mfd.core.messages import Kind, Message
from mfd.core.tasks import (
    Task,
    child_of,
    errand_task,
    has_scale,
    is_too_large,
    read_claims,
    read_task,
    why_no_child,
)
from mfd.core.walkers import Walkers
from mfd.packet.errors import Fault, PacketError
from mfd.packet.extent import FULL
from mfd.packet.scales import claims_of
from mfd.packet.task import LearnResult, LearnTask, Range

__all__ = ["Errand", "Errands"]

RESULTS_MAX = 64  # results kept for owners that have not asked for them yet


@dataclass(frozen=True, slots=True)
class Errand:
    """What an errand brought back."""

    peer: bytes
    claims: Mapping[str, float]
    version: Version | None
    carried_bytes: int  # objects sent and received for it


@dataclass(slots=True)
class _Sent:
    walker: Walker
    version: Version
    peer: bytes
    ranges: tuple[Range, ...]  # to be trained
    then: Callable[[Errand], None]
    failed: Callable[[str], None]
    ref: bytes
    timer: Timer
    less: Callable[[int], None] | None  # where the peer takes only parts; None: as if it failed
    carried_bytes: int = 0
    accepted: bool = False


class Errands:
    """Errands sent and errands done by one peer."""

    def __init__(
        self,
        ctx: Context,
        walkers: Walkers,
        courier: Courier,
        exchange: Exchange,
        holdings: Mapping[str, int],
    ) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier
        self._exchange = exchange
        self._holdings = holdings
        self._sent: dict[bytes, _Sent] = {}  # by errand
        self._doing: set[bytes] = set()
        self._results: dict[bytes, tuple[bytes, Version]] = {}  # ref of RESULT -> owner, version

    # the owner's side

    def send(
        self,
        walker: Walker,
        peer: bytes,
        task: Task,
        then: Callable[[Errand], None],
        failed: Callable[[str], None],
        *,
        version: Version | None = None,
        less: Callable[[int], None] | None = None,
    ) -> None:
        """Ask a peer, or ourselves, to measure or train the version owned here, or another one."""
        version = version or walker.version
        assert version is not None
        if peer == self._ctx.me:
            self._do_here(walker, version, task, then, failed)
            return
        kind, ranges, journey = task
        errand = self._ctx.dice.bytes(16)
        identity = walker.identity
        ref = self._courier.send(
            peer,
            Kind.ERRAND,
            errand,
            walker.id,
            identity.genesis_record,
            identity.plan_record,
            version.record,
            version.signature,
            [kind, [list(r) for r in ranges], list(journey)],
        )
        timer = self._ctx.after(
            self._ctx.config.errand_us, partial(self._end_failed, errand, "no answer in time")
        )
        self._sent[errand] = _Sent(walker, version, peer, ranges, then, failed, ref, timer, less)

    def _do_here(
        self,
        walker: Walker,
        version: Version,
        task: Task,
        then: Callable[[Errand], None],
        failed: Callable[[str], None],
    ) -> None:
        learn = errand_task(walker.identity, version, task, self._holdings, self._ctx.me)
        if learn is None:
            failed("this peer does not hold the data that the plan names")
            return

        def learned(result: LearnResult) -> None:
            made: Version | None = None
            if learn.kind != "measure":
                try:
                    made = child_of(version, learn, result, self._ctx.signer)
                except ValueError as error:
                    failed(str(error))
                    return
            then(Errand(self._ctx.me, result.claims, made, 0))

        self._ctx.learn(learn, learned, failed)

    def _end(self, errand: bytes) -> _Sent | None:
        sent = self._sent.pop(errand, None)
        if sent is not None:
            sent.timer.cancel()
            sent.walker.bases.pop(errand, None)
        return sent

    def _end_failed(self, errand: bytes, reason: str) -> None:
        sent = self._end(errand)
        if sent is not None:
            sent.failed(reason)

    def on_accept(self, message: Message) -> bool:
        """Ship to a peer that accepted an errand, or to the owner that wants a result."""
        ref, nonce, lacks, told = message.body
        if ref in self._results:
            owner, version = self._results.pop(ref)
            if message.sender == owner:
                claim = (ref, nonce)
                self._ship(owner, claim, version, (lacks, told), done=_ignore, failed=_ignore)
            return True
        for errand, sent in self._sent.items():
            if sent.ref == ref and sent.peer == message.sender and not sent.accepted:
                sent.accepted = True
                self._ship(
                    sent.peer,
                    (ref, nonce),
                    sent.version,
                    (lacks, told),
                    done=partial(self._shipped, errand),
                    failed=partial(self._end_failed, errand),
                )
                return True
        return False

    def _ship(
        self,
        peer: bytes,
        claim: tuple[bytes, bytes],
        version: Version,
        accepted: tuple[list[Any], list[Any]],
        *,
        done: Callable[[int], None],
        failed: Callable[[str], None],
    ) -> None:
        lacks, told = accepted
        asked = set(lacks)
        wanted = tuple((d, size) for d, size in version.objects.items() if d in asked)
        if len(wanted) != len(lacks):
            failed("it asks for objects that are not the walker's")
            return
        walker = self._walkers.get(version.manifest.walker)
        bases = common(walker, version.objects, lacks, told) if walker is not None else None
        self._exchange.ship(peer, claim, wanted, done, failed, bases=bases)

    def _shipped(self, errand: bytes, sent_bytes: int) -> None:
        if errand in self._sent:
            self._sent[errand].carried_bytes += sent_bytes

    def on_refuse(self, message: Message) -> bool:
        """The peer does not want to; False where the ref is no errand of ours."""
        ref, code, number, reason = message.body
        for errand, sent in list(self._sent.items()):
            if sent.ref == ref and sent.peer == message.sender:
                if code == PARTS and sent.less is not None:
                    self._end(errand)
                    sent.less(number)
                else:
                    self._end_failed(errand, reason)
                return True
        return False

    def on_failed(self, message: Message) -> None:
        """The peer tried and could not."""
        errand, reason = message.body
        sent = self._sent.get(errand)
        if sent is not None and sent.peer == message.sender:
            self._end_failed(errand, reason)

    def on_result(self, message: Message) -> None:
        """Claims, and perhaps a new version whose objects we ask for.

        Raises: PacketError for a version that does not verify.
        """
        errand, claims, record, signature = message.body
        sent = self._sent.get(errand)
        if sent is None or sent.peer != message.sender:
            return
        numbers = read_claims(claims)
        if not record:
            self._end(errand)
            sent.then(Errand(sent.peer, numbers, None, sent.carried_bytes))
            return
        version = Version.open(record, signature, self._ctx.verify)
        reason = why_no_child(version.manifest, sent.version, message.sender, sent.ranges)
        if reason is not None:
            self._end_failed(errand, reason)
            return
        lacks = tuple(
            (digest, size)
            for digest, size in version.objects.items()
            if digest not in sent.version.objects
        )
        nonce = self._ctx.dice.bytes(16)
        digests = [digest for digest, _ in lacks]
        told = self._walkers.bases(sent.walker, errand, version, lacks)
        self._courier.send(sent.peer, Kind.ACCEPT, message.ref, nonce, digests, told)
        self._exchange.expect(
            (message.ref, nonce),
            lacks,
            partial(self._brought, errand, numbers, version),
            partial(self._end_failed, errand),
            bases=dict(zip(digests, map(tuple, told), strict=False)),
        )

    def _brought(
        self, errand: bytes, claims: Mapping[str, float], version: Version, came_bytes: int
    ) -> None:
        sent = self._end(errand)
        if sent is not None:
            scale, carried = version.manifest.scale, sent.carried_bytes + came_bytes
            claims = claims if scale == FULL else {**claims, **claims_of(scale)}
            sent.then(Errand(sent.peer, claims, version, carried))

    # the other side

    def on_errand(self, message: Message) -> None:
        """Take an errand if we hold the data that the plan names for it.

        Raises: PacketError for records that do not verify.
        """
        errand, walker_id, genesis, plan_record, record, signature, task = message.body
        identity = open_identity(genesis, plan_record, self._ctx.verify)
        version = Version.open(record, signature, self._ctx.verify)
        if version.manifest.seq >= SEQ_MAX:
            raise PacketError(Fault.FIELD, "seq of the version in an errand")
        wanted = read_task(task, len(version.manifest.layers))
        learn = errand_task(identity, version, wanted, self._holdings, self._ctx.me)
        belongs = walker_id == identity.walker == version.manifest.walker
        if learn is None or not belongs or version.manifest.plan != identity.genesis.plan:
            self._refuse(message, UNFIT, "this peer does not hold the data that the plan names")
            return
        if not has_scale(identity.plan, version, wanted):
            self._refuse(message, UNFIT, "the plan does not allow this scale of its model")
            return
        if is_too_large(version, self._ctx.config):
            most_bytes = self._ctx.config.whole_bytes_max
            self._refuse(message, PARTS, "this peer takes only parts of it", most_bytes)
            return
        walker = self._walkers.get(walker_id) or self._walkers.add(identity)
        if walker is None or len(self._doing) >= self._ctx.config.slots:
            self._refuse(message, BUSY, "too much work is under way here")
            return
        if errand in self._doing:
            return
        self._doing.add(errand)
        walker.pinned[errand] = version
        lacks = self._walkers.lacks(walker, version)
        nonce = self._ctx.dice.bytes(16)
        digests = tuple(digest for digest, _ in lacks)
        told = self._walkers.bases(walker, errand, version, lacks)
        self._courier.send(message.sender, Kind.ACCEPT, message.ref, nonce, list(digests), told)
        work = partial(self._work, walker, version, learn, (message.sender, errand))
        self._exchange.expect(
            (message.ref, nonce),
            lacks,
            partial(self._arrived, walker, version, digests, work),
            lambda _: self._finish(walker, errand),
            bases=dict(zip(digests, map(tuple, told), strict=False)),
        )

    def _refuse(self, message: Message, code: int, reason: str, number: int = 0) -> None:
        self._courier.send(message.sender, Kind.REFUSE, message.ref, code, number, reason)

    def _arrived(
        self,
        walker: Walker,
        version: Version,
        digests: tuple[bytes, ...],
        work: Callable[[], None],
        _: int,
    ) -> None:
        walker.cache = version
        self._walkers.save(walker, objects=digests, then=work)

    def _work(
        self, walker: Walker, version: Version, learn: LearnTask, client: tuple[bytes, bytes]
    ) -> None:
        self._ctx.learn(
            learn,
            partial(self._worked, walker, version, learn, client),
            partial(self._could_not, walker, client),
        )

    def _finish(self, walker: Walker, errand: bytes) -> None:
        self._doing.discard(errand)
        walker.pinned.pop(errand, None)
        walker.bases.pop(errand, None)

    def _could_not(self, walker: Walker, client: tuple[bytes, bytes], reason: str) -> None:
        owner, errand = client
        self._finish(walker, errand)
        self._ctx.report("learning failed", walker=walker.id.hex(), reason=reason)
        self._courier.send(owner, Kind.FAILED, errand, reason[:200])

    def _worked(
        self,
        walker: Walker,
        version: Version,
        learn: LearnTask,
        client: tuple[bytes, bytes],
        result: LearnResult,
    ) -> None:
        owner, errand = client
        claims = dict(result.claims)
        if learn.kind == "measure":
            self._finish(walker, errand)
            self._courier.send(owner, Kind.RESULT, errand, claims, b"", b"")
            return
        try:
            made = child_of(version, learn, result, self._ctx.signer)
        except ValueError as error:
            self._could_not(walker, client, str(error))
            return
        self._finish(walker, errand)
        walker.cache = made
        digests = tuple(ref.digest for ref in result.layers)

        def stored() -> None:
            ref = self._courier.send(
                owner, Kind.RESULT, errand, claims, made.record, made.signature
            )
            self._results[ref] = (owner, made)
            while len(self._results) > RESULTS_MAX:
                del self._results[next(iter(self._results))]

        self._walkers.save(walker, objects=digests, then=stored)


def _ignore(_: object) -> None:
    """The owner asks again if it still wants the result."""
