"""Custody of walkers, as disks and messages show it.

    S1  at most one owner for each walker and epoch, over all disks, those of dead hosts too
    S2  some disk that is not lost for good has a whole copy that custody counts on
    S3  the (epoch, hop) of a walker never goes down at a host, across restarts
    S4  no STORED, GRANT, OWNED or RELEASED leaves before the disk says what it promises
    S5  one position is granted once
    S6  every version kept is signed, and its parents were versions kept somewhere before
    S16 a merge of siblings has seen what its parents have, no more and no less
    S7  one trainer signs one version for each walker, epoch and seq
    S11 whoever has been shown a newer epoch makes no offer in the older one, and owns no more in it

Rules of this file: it reads disks and frames and touches nothing. A breach raises Violation.
Source: spec/custody.md, section "Invariants".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgpack

from mfd.core.ages import ages_of, joined
from mfd.core.certificates import Certificate, Position, follows, open_certificate
from mfd.core.effects import Effect, Send
from mfd.core.events import Event, Received
from mfd.core.meeting import MERGED
from mfd.core.messages import Kind, Message, decode_message
from mfd.packet.errors import PacketError
from mfd.packet.manifest import Manifest, verify_manifest
from mfd.packet.objects import object_digest
from mfd.sim import insight
from mfd.sim.checks.streams import Streams
from mfd.sim.violation import Violation
from mfd.sim.world import Host, World

__all__ = ["Custody", "Violation"]

OWNERS = ("own", "done")
COPIES = ("own", "done", "shadow", "fenced")


@dataclass(frozen=True, slots=True)
class _Row:
    """What a disk says of a walker."""

    walker: bytes
    role: str
    copies: int  # that custody promises to keep
    version: bytes  # digest of the manifest kept, empty: none
    manifest: Manifest | None
    objects: frozenset[bytes]  # of the version kept
    certificates: tuple[bytes, ...]
    high_water: Position
    held: frozenset[bytes] | None  # objects of the version held
    stored: bytes  # digest of the STORED message for it


class Custody:
    """Watches a world; use as `world.observers.append(Custody(world))`."""

    def __init__(self, world: World, liars: set[str] | None = None) -> None:
        self._world = world
        self._verify = world.signatures.verify
        self._liars = liars if liars is not None else set()
        self.lost: set[str] = set()  # hosts whose disks will never come back
        self.promises = 0  # messages checked against a disk
        self.handovers = 0  # positions granted
        self.excused: set[bytes] = set()  # walkers lost with all copies that were promised
        self._gone: dict[bytes, int] = {}  # walker -> copies, of rows on disks that were emptied
        self._losses: dict[bytes, int] = {}  # walker -> disks lost since it was last whole
        self._whole: set[bytes] = set()  # walkers that have had all promised copies
        self._changes: dict[str, int] = {}  # host -> disk changes read
        self._seen: dict[str, dict[str, bytes]] = {}  # host -> row key -> bytes last read
        self._rows: dict[tuple[str, bytes], _Row] = {}
        self._opened: dict[bytes, Certificate] = {}
        self._manifests: dict[bytes, Manifest] = {}  # by version, of those seen on any disk
        self.versions = self._manifests  # for other checkers to read
        self.lying: dict[bytes, set[str]] = {}  # walker -> liars that have had it in their hands
        self._signed: dict[tuple[bytes, int, bytes, int, bytes], bytes] = {}
        self._durable: dict[str, set[bytes]] = {}  # host -> digests that its disk has ever said
        self._granted: dict[tuple[bytes, Position], bytes] = {}
        self._fences: dict[tuple[str, int, bytes], tuple[int, bytes]] = {}  # host, life, walker
        self._fenced: dict[str, set[bytes]] = {}  # host -> offers that were open when it was shown
        self._sent = Streams()
        self._heard = Streams()

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check everything after one event. Raises: Violation."""
        self.read(self._world.hosts.values())
        if host.name not in self._liars:
            self.look(host, event, effects)

    def look(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check what one honest host said and heard. Raises: Violation."""
        if isinstance(event, Received):
            for raw in self._heard.data(host, event.link, event.frame):
                if raw[0] == Kind.STALE and host.peer is not None:
                    label = int.from_bytes(event.frame[1:5], "little")
                    if insight.listens(host.peer, event.link, label):
                        self._check_heard(host, raw)
        for effect in effects:
            if isinstance(effect, Send) and effect.channel == "control":
                frame = effect.frame[0] if len(effect.frame) == 1 else b"".join(effect.frame)
                for raw in self._sent.data(host, effect.link, frame):
                    if raw[1:33] == host.key.public_key:
                        self._check_promise(host, self._decode(host, raw))
        if host.name in self._fenced:
            self._check_offers(host)

    def _decode(self, host: Host, raw: bytes) -> Message:
        return decode_message(raw, network=host.config.network, verify=self._verify)

    # disks

    def read(self, hosts: object) -> None:
        """Read the disks that have changed and check what they say. Raises: Violation."""
        changed = False
        for host in hosts:  # type: ignore[attr-defined]
            if self._changes.get(host.name) != host.disk.changes:
                self._changes[host.name] = host.disk.changes
                changed |= self._read_disk(host)
        if changed:
            self._check_owners()
            self._check_copies()

    def _read_disk(self, host: Host) -> bool:
        changed = False
        seen = self._seen.setdefault(host.name, {})
        for key, value in host.disk.records.items():
            if key.startswith("walker/") and seen.get(key) is not value:
                seen[key] = value
                self._read_row(host, key, value)
                changed = True
        return changed

    def bury(self, host: Host) -> None:
        """A host goes for good: its disk counts for owners, and as no copy."""
        self._count_loss(host)
        self.lost.add(host.name)
        self._check_copies()

    def bereave(self, host: Host) -> None:
        """A disk is about to be emptied: nothing that it says counts any more."""
        self._count_loss(host)
        for name, walker in list(self._rows):
            if name == host.name:
                self._gone.setdefault(walker, self._rows.pop((name, walker)).copies)
        self._seen.pop(host.name, None)
        self._check_copies()

    def _count_loss(self, host: Host) -> None:
        self.read(self._world.hosts.values())
        grants = self._grants()
        for (name, walker), row in self._rows.items():
            if name == host.name and row.role == "done":
                self.excused.add(walker)  # delivered: copies are kept while it travels
            elif name == host.name and self._is_copy(name, row, grants):
                self._losses[walker] = self._losses.get(walker, 0) + 1

    def best(self, among: set[str]) -> dict[bytes, tuple[str, str, Position, int]]:
        """Return (host, role, position, seq) of the newest record of each walker, as disks say."""
        found: dict[bytes, tuple[str, str, Position, int]] = {}
        for (name, walker), row in self._rows.items():
            seq = -1 if row.manifest is None else row.manifest.seq
            if name in among and row.role in COPIES:
                known = found.get(walker)
                # of one position the owner's record tells more than its shadow's
                rank = (row.high_water, row.role in OWNERS, seq)
                if known is None or rank > (known[2], known[1] in OWNERS, known[3]):
                    found[walker] = (name, row.role, row.high_water, seq)
        return found

    def done(self) -> set[bytes]:
        """Return the walkers that some disk says are home for good."""
        return {walker for (_, walker), row in self._rows.items() if row.role == "done"}

    def owners(self, among: set[str], *, done: bool = True) -> dict[bytes, list[str]]:
        """Return the hosts that own each walker, in whatever epoch; `done`: or had it come home."""
        found: dict[bytes, list[str]] = {}
        for (name, walker), row in self._rows.items():
            if name in among and (row.role == "own" or (done and row.role == "done")):
                found.setdefault(walker, []).append(name)
        return found

    def _read_row(self, host: Host, key: str, value: bytes) -> None:
        role, genesis, _, version, _, certificates, water, held = msgpack.unpackb(value)
        if role == "fenced" and not certificates:
            role = "released"  # a branch that nobody counts on any more
        walker, name = bytes.fromhex(key.removeprefix("walker/")), host.name
        manifest, objects = self._open_version(host, version)
        row = _Row(
            walker,
            role,
            msgpack.unpackb(genesis[96:])[3],
            b"" if version is None else object_digest(version[0]),
            manifest,
            objects,
            tuple(certificates),
            (water[0], water[1], water[2]),
            None if held is None else self._open_version(host, held[0])[1],
            b"" if held is None else object_digest(held[6]),
        )
        before = self._rows.get((name, walker))
        revived = before is not None and before.role == "fenced" and row.role in ("own", "shadow")
        if before is not None and revived and row.high_water <= before.high_water:
            raise self._violation("S11", f"{name} goes on with {_place(row)}, which is fenced")
        if before is not None and row.high_water < before.high_water and name not in self._liars:
            raise self._violation("S3", f"{name} went down from {_place(before)} to {_place(row)}")
        self._rows[name, walker] = row
        durable = self._durable.setdefault(name, set())
        for record in certificates:
            durable.add(object_digest(record))
            self._open(record)
        durable.add(row.stored)
        if name not in self._liars:
            self._check_version(host, row)

    def _open_version(
        self, host: Host, pair: list[bytes] | None
    ) -> tuple[Manifest | None, frozenset[bytes]]:
        if pair is None:
            return None, frozenset()
        digest = object_digest(pair[0])
        manifest = self._manifests.get(digest)
        if manifest is None:
            try:
                manifest = verify_manifest(pair[0], pair[1], self._verify)
            except PacketError as error:
                raise self._violation(
                    "S6", f"{host.name} keeps a version that is not signed: {error}"
                ) from error
            # a liar may have thrown away what it says it stored, and so never kept the parent
            untold = {self._world.hosts[name].key.public_key for name in self._liars}
            if host.name not in self._liars and manifest.trainer not in untold:
                # clients of a federated round keep theirs in caches, which nobody reads
                several = manifest.parents if MERGED in manifest.claims else manifest.parents[:1]
                strangers = [p for p in several if p not in self._manifests]
                if strangers or (manifest.seq > 0 and not manifest.parents):
                    raise self._violation(
                        "S6", f"{host.name} keeps seq {manifest.seq} without its parent"
                    )
                self._check_merge(host, manifest)
            self._manifests[digest] = manifest
        return manifest, frozenset(ref.digest for ref in manifest.layers)

    def _check_merge(self, host: Host, manifest: Manifest) -> None:
        """S16: a merge of siblings has seen what its parents have, and nothing else."""
        parents = [self._manifests[p] for p in manifest.parents if p in self._manifests]
        if MERGED not in manifest.claims:
            return
        if ages_of(manifest) != joined([ages_of(parent) for parent in parents]):
            raise self._violation("S16", f"{host.name} merged what it has not seen")
        if len({(p.plan, p.model) for p in (manifest, *parents)}) > 1:
            raise self._violation("S16", f"{host.name} merged walkers of different plans")
        if manifest.seq <= max(parent.seq for parent in parents):
            raise self._violation("S16", f"{host.name} numbers a merge {manifest.seq}")

    def _check_version(self, host: Host, row: _Row) -> None:
        manifest = row.manifest
        if row.role == "own" and manifest is not None and manifest.trainer == host.key.public_key:
            counter, issuer, _ = row.high_water
            key = (row.walker, counter, issuer, manifest.seq, manifest.trainer)
            if self._signed.setdefault(key, row.version) != row.version:
                raise self._violation("S7", f"{host.name} signed seq {manifest.seq} twice")

    def _open(self, record: bytes) -> Certificate:
        digest = object_digest(record)
        certificate = self._opened.get(digest)
        if certificate is None:
            certificate = self._opened[digest] = open_certificate(record, self._verify)
        return certificate

    def _check_owners(self) -> None:
        owners: dict[tuple[bytes, int, bytes], str] = {}
        for (name, walker), row in self._rows.items():
            if row.role in OWNERS and name not in self._liars:
                key = (walker, *row.high_water[:2])
                other = owners.setdefault(key, name)
                if other != name:
                    raise self._violation("S1", f"{other} and {name} own epoch {key[1]}")

    def _grants(self) -> set[bytes]:
        return {
            self._open(record).stored
            for row in self._rows.values()
            for record in row.certificates[:1]
        }

    def _is_copy(self, name: str, row: _Row, grants: set[bytes]) -> bool:
        """Whether a disk has a whole copy that custody counts on."""
        if name in self.lost:
            return False
        objects = self._world.hosts[name].disk.objects.keys()
        if row.role in COPIES and row.objects and row.objects <= objects:
            return True
        return row.held is not None and row.stored in grants and row.held <= objects

    def _check_copies(self) -> None:
        grants = self._grants()
        copies: dict[bytes, int] = {}
        promised = dict(self._gone)
        for (name, walker), row in self._rows.items():
            copies[walker] = copies.get(walker, 0) + self._is_copy(name, row, grants)
            if row.role != "none":
                promised[walker] = row.copies
        for walker, wanted in promised.items():
            if copies.get(walker, 0) >= wanted:
                self._whole.add(walker)
                self._losses[walker] = 0
            elif not copies.get(walker, 0) and walker not in self.excused:
                losses = self._losses.get(walker, 0)
                # a liar that had it may have thrown away what it said was stored: a lost disk too
                lying = len(self.lying.get(walker, ()))
                bearable = wanted - lying if walker in self._whole else 1
                if losses < bearable:
                    raise self._violation("S2", f"no copy of {walker.hex()[:12]} is left")
                self.excused.add(walker)

    # frames

    def _check_promise(self, host: Host, message: Message) -> None:
        durable = self._durable.get(host.name, set())
        match message.kind:
            case Kind.STORED:
                kept = message.ref in durable
            case Kind.GRANT:
                kept = object_digest(message.body[2]) in durable
                self._check_grant(host, message.body[2])
            case Kind.OWNED:
                kept = message.body[2] in durable
            case Kind.RELEASED:
                row = self._rows.get((host.name, message.body[0]))
                asked = self._opened.get(message.body[1])
                position = asked.position if asked is not None else (0, b"", 0)
                kept = row is None or row.role != "shadow" or row.high_water > position
            case _:
                return
        self.promises += 1
        if not kept:
            raise self._violation("S4", f"{host.name} sent {message.kind.name} before its fsync")

    def _check_grant(self, host: Host, record: bytes) -> None:
        certificate = self._open(record)
        key = (certificate.walker, certificate.position)
        if key not in self._granted:
            self.handovers += 1
        if self._granted.setdefault(key, record) != record:
            raise self._violation("S5", f"hop {certificate.hop} was granted twice")

    # fences

    def _check_heard(self, host: Host, raw: bytes) -> None:
        """Remember a fence that a host has been shown and must believe."""
        assert host.peer is not None
        try:
            message = self._decode(host, raw)
        except PacketError:
            return
        walker_id, chain = message.body
        row = self._rows.get((host.name, walker_id))
        if row is None or row.role != "own" or not row.certificates or not chain:
            return
        live = next((w for w in insight.walkers(host.peer) if w.id == walker_id), None)
        if live is None or live.saving or live.certificates[:1] != row.certificates[:1]:
            return  # it may rightly not have listened
        mine = self._open(row.certificates[0])
        try:
            newest = self._open(chain[0])
            older = self._open(chain[1]) if len(chain) > 1 else None
        except PacketError:
            return
        proven = follows(newest, mine, row.certificates[0]) or (
            older is not None and follows(newest, older, chain[1])
        )
        if newest.epoch > mine.epoch and proven:
            self._fences[host.name, host.life, walker_id] = newest.epoch
            before = self._fenced.setdefault(host.name, set())
            before.update(r for r, (w, _) in insight.offers(host.peer).items() if w == walker_id)

    def _check_offers(self, host: Host) -> None:
        """Of a host that has been shown a fence: what it offers now must not be older."""
        if host.peer is None:
            return
        for ref, (walker, epoch) in insight.offers(host.peer).items():
            if ref in self._fenced[host.name]:
                continue  # it was open when the fence came
            fence = self._fences.get((host.name, host.life, walker))
            if fence is not None and epoch < fence:
                raise self._violation(
                    "S11", f"{host.name} offers epoch {epoch[0]} though it was shown {fence[0]}"
                )

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")


def _place(row: _Row) -> str:
    return f"{row.high_water[0]}.{row.high_water[2]}"
