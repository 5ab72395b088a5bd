"""What must never happen, watched in every event of a simulated world.

    S1  at most one owner for each walker and epoch, over all disks, those of dead hosts too
    S2  some disk that is not lost for good has a whole copy that custody counts on
    S3  the (epoch, hop) of a walker never goes down at a host, across restarts
    S4  no STORED, GRANT, OWNED or RELEASED leaves before the disk says what it promises
    S5  one position is granted once

Rules of this file: it reads disks and frames and touches nothing. A breach raises Violation.
Source: spec/custody.md, section "Invariants".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgpack

from mfd.core.certificates import Position, open_certificate
from mfd.core.effects import Effect, Send
from mfd.core.events import Event
from mfd.core.frames import DATA_TYPE
from mfd.core.messages import Kind, Message, Splitter, decode_message
from mfd.packet.manifest import decode_manifest
from mfd.packet.objects import object_digest
from mfd.sim.keys import sim_verify
from mfd.sim.world import Host, World

__all__ = ["Custody", "Violation"]

OWNERS = ("own", "done")
COPIES = ("own", "done", "shadow")


class Violation(AssertionError):
    """An invariant does not hold; the message says which, where and when."""


@dataclass(frozen=True, slots=True)
class _Row:
    """What a disk says of a walker."""

    walker: bytes
    role: str
    objects: frozenset[bytes]  # of the version kept
    certificates: tuple[bytes, ...]
    high_water: Position
    held: frozenset[bytes] | None  # objects of the version held
    stored: bytes  # digest of the STORED message for it


class Custody:
    """Watches a world; use as `world.observers.append(Custody(world))`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.lost: set[str] = set()  # hosts whose disks will never come back
        self.promises = 0  # messages checked against a disk
        self._seen: dict[str, dict[str, bytes]] = {}  # host -> row key -> bytes last read
        self._rows: dict[tuple[str, bytes], _Row] = {}
        self._positions: dict[bytes, Position] = {}  # of certificates seen on any disk
        self._durable: dict[str, set[bytes]] = {}  # host -> digests that its disk has ever said
        self._granted: dict[tuple[bytes, Position], bytes] = {}
        self._streams: dict[tuple[str, int, bytes], Splitter] = {}

    def __call__(self, host: Host, event: Event, effects: Sequence[Effect]) -> None:
        """Check everything after one event. Raises: Violation."""
        if self._read_disks():
            self._check_owners()
            self._check_copies()
        for effect in effects:
            if isinstance(effect, Send):
                for message in self._messages(host, effect):
                    if message.sender == host.key.public_key:
                        self._check_promise(host, message)

    # disks

    def _read_disks(self) -> bool:
        changed = False
        for host in self._world.hosts.values():
            seen = self._seen.setdefault(host.name, {})
            for key, value in host.disk.records.items():
                if seen.get(key) is not value:
                    seen[key] = value
                    self._read_row(host.name, key, value)
                    changed = True
        return changed

    def _read_row(self, name: str, key: str, value: bytes) -> None:
        role, _, _, version, _, certificates, water, held = msgpack.unpackb(value)
        walker = bytes.fromhex(key.removeprefix("walker/"))
        row = _Row(
            walker,
            role,
            _objects(version),
            tuple(certificates),
            (water[0], water[1], water[2]),
            None if held is None else _objects(held[0]),
            b"" if held is None else object_digest(held[6]),
        )
        before = self._rows.get((name, walker))
        if before is not None and row.high_water < before.high_water:
            raise self._violation("S3", f"{name} went down from {_place(before)} to {_place(row)}")
        self._rows[name, walker] = row
        durable = self._durable.setdefault(name, set())
        for record in certificates:
            digest = object_digest(record)
            durable.add(digest)
            if digest not in self._positions:
                self._positions[digest] = open_certificate(record, sim_verify).position
        durable.add(row.stored)

    def _check_owners(self) -> None:
        owners: dict[tuple[bytes, int, bytes], str] = {}
        for (name, walker), row in self._rows.items():
            if row.role in OWNERS:
                key = (walker, *row.high_water[:2])
                other = owners.setdefault(key, name)
                if other != name:
                    raise self._violation("S1", f"{other} and {name} own epoch {key[1]}")

    def _check_copies(self) -> None:
        grants = {
            open_certificate(record, sim_verify).stored
            for row in self._rows.values()
            for record in row.certificates[:1]
        }
        safe = set()
        for (name, walker), row in self._rows.items():
            if name in self.lost:
                continue
            objects = self._world.hosts[name].disk.objects
            if row.role in COPIES and row.objects and row.objects <= objects.keys():
                safe.add(walker)
            if row.held is not None and row.stored in grants and row.held <= objects.keys():
                safe.add(walker)
        for _, walker in self._rows:
            if walker not in safe and self._was_owned(walker):
                raise self._violation("S2", f"no copy of {walker.hex()[:12]} is left")

    def _was_owned(self, walker: bytes) -> bool:
        return any(w == walker and row.role != "none" for (_, w), row in self._rows.items())

    # frames

    def _messages(self, host: Host, send: Send) -> Iterator[Message]:
        frame = b"".join(send.frame)
        if send.channel != "control" or frame[0] != DATA_TYPE:
            return
        stream = self._streams.setdefault((host.name, send.link, frame[1:5]), Splitter())
        for raw in stream.feed(memoryview(frame)[5:]):
            yield decode_message(raw, network=host.config.network, verify=sim_verify)

    def _check_promise(self, host: Host, message: Message) -> None:
        durable = self._durable.get(host.name, set())
        match message.kind:
            case Kind.STORED:
                kept = message.ref in durable
            case Kind.GRANT:
                kept = object_digest(message.body[2]) in durable
                self._check_grant(message.body[2])
            case Kind.OWNED:
                kept = message.body[2] in durable
            case Kind.RELEASED:
                row = self._rows.get((host.name, message.body[0]))
                asked = self._positions.get(message.body[1], (0, b"", 0))
                kept = row is None or row.role != "shadow" or row.high_water > asked
            case _:
                return
        self.promises += 1
        if not kept:
            raise self._violation("S4", f"{host.name} sent {message.kind.name} before its fsync")

    def _check_grant(self, record: bytes) -> None:
        certificate = open_certificate(record, sim_verify)
        key = (certificate.walker, certificate.position)
        if self._granted.setdefault(key, record) != record:
            raise self._violation("S5", f"hop {certificate.hop} was granted twice")

    def _violation(self, name: str, text: str) -> Violation:
        return Violation(f"{name}: {text}, at {self._world.now_us / 1e6:.6f} s")


def _objects(pair: list[bytes] | None) -> frozenset[bytes]:
    if pair is None:
        return frozenset()
    return frozenset(ref.digest for ref in decode_manifest(pair[0]).layers)


def _place(row: _Row) -> str:
    return f"{row.high_water[0]}.{row.high_water[2]}"
