"""Walkers on their way in and out by the owner's hand: the file that `mfd send` posts, and `.mfd`.

    0         4             8            12           20
    | "MFDI"  | genesis u32 | plan u32   | packet u64 | genesis | plan | packet |

`genesis` and `plan` are signed records, `packet` is a whole `.mfd` packet: the first version with
all its layer objects. Lengths are bytes, little-endian.
Rules of this file: lengths are checked before memory or disk is taken; nothing of a packet counts
before its digests do.
Source: spec/packet.md, "Packet"; spec/link.md section 6.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from struct import Struct
from typing import IO

from mfd.core.custody import Version, Walker, open_identity
from mfd.core.effects import Discard, Keep
from mfd.core.events import Injected, KeepFailed
from mfd.net.keys import verify
from mfd.net.store import DiskStore, StoreError
from mfd.packet.carried import CarriedObject
from mfd.packet.errors import PacketError
from mfd.packet.limits import OBJECT_BYTES_MAX, PLAN_BYTES_MAX
from mfd.packet.objects import Buffer, wrap_object
from mfd.packet.packet import Packet, decode, encode

__all__ = [
    "Injection",
    "InjectionError",
    "InjectionReader",
    "pack_injection",
    "pack_model",
    "receive",
]

MAGIC = b"MFDI"
HEAD = Struct("<4sIIQ")
GENESIS_BYTES_MAX = 4 << 10
PLAN_RECORD_BYTES_MAX = PLAN_BYTES_MAX + 128  # the key and signature that seal it
PACKET_BYTES_MAX = OBJECT_BYTES_MAX


class InjectionError(ValueError):
    """The file cannot be taken; the sentence says why."""


@dataclass(frozen=True, slots=True)
class Injection:
    """A walker whose objects are in the store; the core has still to take it."""

    walker: str  # id in hexadecimal
    event: Injected
    fresh: tuple[bytes, ...]  # objects that came with it, to be discarded where the core refuses


def pack_injection(genesis: bytes, plan: bytes, packet: Sequence[Buffer]) -> list[Buffer]:
    """Return the parts of an injection file; the packet's parts are not copied."""
    size = sum(memoryview(part).nbytes for part in packet)
    return [HEAD.pack(MAGIC, len(genesis), len(plan), size), genesis, plan, *packet]


class InjectionReader:
    """Takes an injection file piece by piece; the packet goes to `file`, the rest to memory.

    Raises: InjectionError from `feed` and `finish`.
    """

    def __init__(self, file: IO[bytes], room_for: Callable[[int], None]) -> None:
        self._file = file
        self._room_for = room_for
        self._head = bytearray()
        self._sizes: tuple[int, int, int] | None = None
        self._written = 0

    def feed(self, data: Buffer) -> None:
        """Take the next bytes."""
        rest = memoryview(data)
        if self._sizes is None:
            rest = self._gather(rest, HEAD.size)
            if len(self._head) < HEAD.size:
                return
            self._sizes = self._read_head()
        genesis, plan, packet = self._sizes
        rest = self._gather(rest, HEAD.size + genesis + plan)
        if self._written + len(rest) > packet:
            raise InjectionError("the injection file is longer than its head declares")
        self._written += self._file.write(rest)

    def _gather(self, data: memoryview, upto: int) -> memoryview:
        size = min(len(data), max(0, upto - len(self._head)))
        self._head += data[:size]
        return data[size:]

    def _read_head(self) -> tuple[int, int, int]:
        magic, genesis, plan, packet = HEAD.unpack(self._head)
        if magic != MAGIC:
            raise InjectionError("this is not an injection file: post what `mfd send` makes")
        limits = (GENESIS_BYTES_MAX, PLAN_RECORD_BYTES_MAX, PACKET_BYTES_MAX)
        for name, size, limit in zip(
            ("genesis", "plan", "packet"), (genesis, plan, packet), limits, strict=True
        ):
            if not 0 < size <= limit:
                raise InjectionError(f"the {name} has {size} bytes; 1 to {limit} are allowed")
        self._room_for(packet)
        return genesis, plan, packet

    def finish(self) -> tuple[bytes, bytes]:
        """Return genesis and plan; the packet is whole in the file."""
        if self._sizes is None or self._written < self._sizes[2]:
            raise InjectionError("the injection file ends too early: send it again")
        genesis = HEAD.size + self._sizes[0]
        return bytes(self._head[HEAD.size : genesis]), bytes(self._head[genesis:])


async def receive(
    body: AsyncIterator[bytes],
    store: DiskStore,
    in_store: Callable[[Callable[[], Injection]], Awaitable[Injection]],
) -> Injection:
    """Take a whole file into the store.

    Raises: InjectionError.
    """
    with tempfile.TemporaryFile(dir=store.incoming) as file:
        try:
            reader = InjectionReader(file, store.room_for)
            async for data in body:
                reader.feed(data)
            genesis, plan = reader.finish()
            file.flush()
            return await in_store(lambda: _unpack(file, genesis, plan, store))
        except (PacketError, OSError) as exc:
            raise InjectionError(f"the injection file cannot be taken: {exc}") from exc


def _unpack(file: IO[bytes], genesis: bytes, plan: bytes, store: DiskStore) -> Injection:
    """Check everything, then put the objects into the store. Runs in the store's thread."""
    identity = open_identity(genesis, plan, verify)
    # Not closed by hand: views of it may outlive this call in an error.
    packet = decode(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), verify)
    if packet.manifest.walker != identity.walker:
        raise InjectionError("the packet in the injection file belongs to another walker")
    for ref in packet.manifest.layers:
        if ref.digest not in packet.objects and ref.digest not in store.objects:
            raise InjectionError(f"layer {ref.name!r} is missing in the injection file")
    fresh = store.lacking(packet.objects)
    for digest, item in packet.objects.items():
        assert isinstance(item, CarriedObject), "decode gives no others"
        for number, (encoding, body) in enumerate(item.bodies):
            keep = Keep(0, digest, item.raw_bytes, number, item.chunks, encoding, body)
            answer = store.perform(keep)
            if isinstance(answer, KeepFailed):
                for begun in packet.objects:
                    store.perform(Discard(begun))
                if answer.reason:
                    raise InjectionError(f"the walker cannot be taken: {answer.reason}")
                raise PacketError(answer.fault, f"object {digest.hex()[:16]}")
    event = Injected(genesis, plan, packet.manifest_bytes, packet.signature)
    return Injection(identity.walker.hex(), event, fresh)


def pack_model(walker: str, store: DiskStore) -> list[Buffer]:
    """Return the newest version of a walker held here as the parts of a `.mfd` packet.

    `walker` is a prefix of its id in hexadecimal. Runs in the store's thread.
    Raises: InjectionError.
    """
    try:
        found = [
            Walker.from_row(row, verify) for row in store.ledger.rows(f"walker/{walker}").values()
        ]
    except (OSError, ValueError) as exc:
        raise InjectionError(f"the ledger cannot be read: {exc}") from exc
    plans = {item.identity.genesis.plan: item.identity.plan_record for item in found}
    versions = [version for item in found if (version := _newest(item)) is not None]
    if len(versions) != 1:
        what = "more than one walker" if versions else "no walker"
        raise InjectionError(f"{what} with an id that begins with {walker!r} is held here")
    version = versions[0]
    try:
        objects = {ref.digest: store.layer(ref.digest) for ref in version.manifest.layers}
    except StoreError as exc:
        raise InjectionError(f"the model is not whole here: {exc}") from exc
    # the recipe stands in the plan: with it the packet alone tells what the tensors belong to
    objects[version.manifest.plan] = wrap_object(plans[version.manifest.plan])
    return encode(Packet(version.manifest, version.record, version.signature, objects))


def _newest(walker: Walker) -> Version | None:
    versions = [version for version in (walker.version, walker.cache) if version is not None]
    return max(versions, key=lambda version: version.manifest.seq, default=None)
