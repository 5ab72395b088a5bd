"""The table of walkers at one peer, and the objects that its rows keep alive.

Rules of this file: a row is saved before anything is promised; an object is dropped only when no
row names it any more.
Source: spec/custody.md, section "Records".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mfd.core.ages import ages_of, total, walkers_of
from mfd.core.bases import Named, named, remember
from mfd.core.context import Context, Timer
from mfd.core.custody import Identity, Role, Version, Walker, must_be_found, open_identity
from mfd.core.events import CommandFailed, Injected
from mfd.core.exchange import Wanted
from mfd.core.status import WalkerStatus
from mfd.packet.errors import PacketError
from mfd.packet.objects import object_digest

__all__ = ["Walkers"]

WALKERS_MAX = 4_096
SPARE = (Role.NONE, Role.RELEASED)  # whose content no promise counts on


class Walkers:
    """Walkers by id."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._walkers: dict[bytes, Walker] = {}
        self._objects: dict[bytes, int] = {}  # complete and durable here
        self._broken = ""  # why the disk takes nothing more
        self._depend: bool | None = None  # see below; None: a record has changed since
        self._fading: dict[bytes, Timer] = {}  # walkers whose content goes then

    def __iter__(self) -> Iterator[Walker]:
        return iter(list(self._walkers.values()))

    @property
    def broken(self) -> str:
        """Why the disk takes nothing more; empty: it does."""
        return self._broken

    @property
    def objects(self) -> Mapping[bytes, int]:
        """Digest -> raw bytes of everything on this disk."""
        return self._objects

    @property
    def depend_on_us(self) -> bool:
        """Whether somebody has to find this peer for a walker's sake; asked after every event."""
        if self._depend is None:
            me = self._ctx.me
            self._depend = any(must_be_found(walker, me) for walker in self._walkers.values())
        return self._depend

    def restore(self, records: Mapping[str, bytes], objects: Mapping[bytes, int]) -> None:
        """Read the ledger back; a row that cannot be read is reported and left alone."""
        self._objects, self._depend = dict(objects), None
        for key in sorted(records):
            if not key.startswith("walker/"):
                continue
            try:
                walker = Walker.from_row(records[key], self._ctx.verify)
            except (PacketError, ValueError, TypeError, KeyError, IndexError) as error:
                self._ctx.report("corrupt", row=key, reason=str(error))
                continue
            missing = [d for d in walker.kept() if d not in self._objects]
            if missing and walker.role in (Role.OWN, Role.SHADOW):
                self._ctx.report("corrupt", row=key, reason=f"{len(missing)} objects are missing")
            self._walkers[walker.id] = walker
            self._fade(walker)

    def get(self, walker_id: bytes) -> Walker | None:
        """The walker, if it is known here."""
        return self._walkers.get(walker_id)

    def siblings(self, walker: Walker) -> list[Walker]:
        """Walkers known here of the same plan, creator and architecture (W-42), by their ids."""
        mine = walker.identity.genesis
        if walkers_of(walker.plan) == 1:
            return []
        return [
            other
            for _, other in sorted(self._walkers.items())
            if other is not walker
            and other.identity.genesis.plan == mine.plan
            and other.identity.genesis.creator == mine.creator
            and other.identity.genesis.model == mine.model
        ]

    def add(self, identity: Identity) -> Walker | None:
        """Return a new record, or None where there is no room or the disk is broken."""
        if len(self._walkers) >= WALKERS_MAX or self._broken:
            return None
        walker = self._walkers[identity.walker] = Walker(identity)
        return walker

    def begin(self, event: Injected) -> tuple[Walker, Version]:
        """Add a walker that a user made; this peer is its first owner. Raises: CommandFailed."""
        me, verify = self._ctx.me, self._ctx.verify
        try:
            identity = open_identity(event.genesis, event.plan, verify)
            version = Version.open(event.manifest, event.signature, verify)
        except PacketError as error:
            raise CommandFailed(f"this walker is not valid: {error}") from error
        manifest = version.manifest
        if manifest.walker != identity.walker or manifest.plan != object_digest(event.plan):
            raise CommandFailed("this walker's manifest, genesis and plan do not belong together")
        if identity.plan.home != me:
            raise CommandFailed(
                f"the plan's home is peer {identity.plan.home.hex()[:12]}, this is "
                f"{me.hex()[:12]}: send it there"
            )
        if self.get(identity.walker) is not None:
            raise CommandFailed("this walker is known here already")
        walker = self.add(identity)
        if walker is None:
            raise CommandFailed("this peer takes no more walkers")
        walker.role, walker.version = Role.OWN, version
        walker.high_water = (0, identity.genesis.creator, 0)
        return walker, version

    def slots_used(self, *, but: Walker) -> int:
        """Walkers that occupy this peer, `but` one; not those that only wait to go on (C-43)."""
        others = (w for w in self._walkers.values() if w is not but)
        owns = Role.OWN
        return sum(1 for w in others if (w.role is owns and not w.waits) or w.held is not None)

    def lacks(self, walker: Walker, version: Version) -> Wanted:
        """Return what of a version is not here, by what this walker's own lineage left here.

        Objects of other walkers do not count, so that a forged manifest cannot fish for them.
        """
        kept = walker.kept()
        return tuple(
            (digest, size)
            for digest, size in version.objects.items()
            if digest not in kept or digest not in self._objects
        )

    def bases(self, walker: Walker, ref: bytes, version: Version, lacks: Wanted) -> Named:
        """Name, and keep until `unpin`, what may lie beneath the objects lacked of a version."""
        digests = [digest for digest, _ in lacks]
        told = named(walker, version, digests, self._objects)
        walker.bases[ref] = tuple(base for bases in told for base in bases)
        return told

    def save(
        self, walker: Walker, *, then: Callable[[], object], objects: tuple[bytes, ...] = ()
    ) -> None:
        """Make a row and the new objects that it names durable, drop what no row names, go on."""
        self._depend = None
        remember(walker, self._ctx.config.bases_kept)
        sizes = walker.kept()
        named = {digest for other in self._walkers.values() for digest in other.kept()}
        for other in self._walkers.values():
            # what we said we have is not dropped before STORED or CANCEL
            kept = (*other.pinned.values(), *other.earlier)
            named.update(digest for version in kept for digest in version.objects)
            named.update(digest for bases in other.bases.values() for digest in bases)
        drop = tuple(digest for digest in self._objects if digest not in named)
        for digest in drop:
            del self._objects[digest]

        walker.saving += 1

        def stored() -> None:
            walker.saving -= 1
            self._objects.update({d: sizes[d] for d in objects if d in sizes})
            then()

        self._ctx.store(
            objects=objects, put=(walker.row(),), drop=drop, then=stored, failed=self._failed
        )
        self._fade(walker)

    def _fade(self, walker: Walker) -> None:
        """Let content that nobody counts on go after a while; the row and its mark stay."""
        before = self._fading.pop(walker.id, None)
        if before is not None:
            before.cancel()
        if walker.role in SPARE and walker.kept():
            keep_us = self._ctx.config.released_keep_us
            self._fading[walker.id] = self._ctx.after(keep_us, partial(self._faded, walker))

    def _faded(self, walker: Walker) -> None:
        if walker.held or walker.pinned or walker.bases or walker.siblings or walker.saving:
            self._fade(walker)  # it is on its way back here, or works here
        elif walker.role in SPARE:
            walker.version = walker.cache = None
            walker.earlier = ()
            self._ctx.count("copies_forgotten")
            self.save(walker, then=lambda: None)

    def _failed(self, reason: str) -> None:
        """The disk has lied or is full: own nothing new, promise nothing."""
        self._broken = reason
        self._ctx.report("disk", reason=reason)

    def status(self) -> tuple[WalkerStatus, ...]:
        """What they look like from outside."""
        return tuple(_status(walker, self._heir(walker)) for walker in self)

    def _heir(self, walker: Walker) -> Walker:
        """Of the siblings that are home the one that has seen most: it has merged the others."""
        if walker.role is not Role.DONE:
            return walker
        home = [w for w in (walker, *self.siblings(walker)) if w.role is Role.DONE]
        return max(home, key=_seen)


def _seen(walker: Walker) -> tuple[int, int, bytes]:
    manifest = walker.version.manifest if walker.version else None
    return (total(ages_of(manifest)), manifest.seq, walker.id) if manifest else (0, 0, walker.id)


def _status(walker: Walker, heir: Walker) -> WalkerStatus:
    manifest = walker.version.manifest if walker.version else None
    return WalkerStatus(
        walker=walker.id.hex(),
        role=walker.role.value,
        activity=walker.activity or ("home" if walker.role is Role.DONE else ""),  # after a start
        mode=walker.plan.mode,
        epoch=walker.high_water[0],
        hop=walker.high_water[2],
        seq=manifest.seq if manifest else 0,
        lap=manifest.progress.lap if manifest else 0,
        laps=walker.plan.laps,
        home=walker.plan.home.hex(),
        heir=heir.id.hex(),
        siblings=walkers_of(walker.plan) - 1,
    )
