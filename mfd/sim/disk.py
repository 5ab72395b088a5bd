"""A disk in memory: what was synced survives a crash, the rest does not."""

from __future__ import annotations

from collections import deque

from blake3 import blake3

from mfd.core.effects import Keep, Store
from mfd.packet.chunks import Encoding, decode_chunk, encode_chunk
from mfd.packet.errors import Fault, PacketError
from mfd.packet.layout import item_bytes_at
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import Buffer, LayerObject, chunk_root

__all__ = ["Disk"]


class Disk:
    """Objects and ledger of one simulated peer."""

    def __init__(self, encoding: Encoding = Encoding.PLANES) -> None:
        self.encoding = encoding  # of chunks for the wire
        self.boot = 0
        self.records: dict[str, bytes] = {}
        self.objects: dict[bytes, bytes] = {}  # synced
        self.changes = 0  # of rows and synced objects, for whoever watches
        self.rotten: set[bytes] = set()  # objects whose bytes have decayed
        self.based: set[tuple[bytes, bytes]] = set()  # (object, base) of differences made lately
        self.remembered: tuple[tuple[bytes, tuple[str, ...]], ...] = ()  # good peers
        self._growing: dict[bytes, bytearray] = {}
        self._fresh: dict[bytes, bytes] = {}  # complete, not synced
        self._syncing: deque[Store] = deque()  # asked for, not yet durable

    def start(self) -> int:
        """Count a boot; what was not synced is gone."""
        self._syncing.clear()
        self._growing.clear()
        self._fresh.clear()
        self.boot += 1
        return self.boot

    def add(self, layer: LayerObject) -> None:
        """Write a whole object, not yet synced."""
        self._fresh[layer.digest] = layer.tobytes()

    def read(self, digest: bytes) -> bytes:
        """Return a whole object. Raises: KeyError where it is missing or damaged."""
        if digest in self.rotten:
            raise KeyError(digest)  # it is checked on reading, as on a real disk
        return self.objects[digest] if digest in self.objects else self._fresh[digest]

    def keep(self, keep: Keep) -> Fault | None:
        """Carry out a Keep effect; return what is wrong with the chunk, if anything."""
        start = keep.chunk * CHUNK_BYTES
        size = min(CHUNK_BYTES, keep.raw_bytes - start)
        try:
            base = self._base(keep.base, keep.chunk)
            raw = decode_chunk(keep.encoding, keep.body, raw_bytes=size, base=base)
        except PacketError as error:
            return error.fault
        if blake3(raw).digest() != keep.chunks[keep.chunk]:
            return Fault.DIGEST
        if keep.digest in self.objects:
            return None  # another walker has brought it meanwhile
        growing = self._growing.setdefault(keep.digest, bytearray(keep.raw_bytes))
        growing[start : start + size] = raw
        return None

    def begin(self, store: Store) -> None:
        """Take a Store effect; it is durable once `finish` was called for it."""
        self._syncing.append(store)

    @property
    def syncing(self) -> int:
        """How many Store effects are under way."""
        return len(self._syncing)

    def finish(self) -> None:
        """Make the oldest Store effect durable; nothing to do where none is under way."""
        if self._syncing:
            self._apply(self._syncing.popleft())

    def refuse(self) -> None:
        """Let the oldest Store effect come to nothing."""
        if self._syncing:
            self._syncing.popleft()

    def _apply(self, store: Store) -> None:
        self.changes += 1
        for digest in store.objects:
            if digest in self.objects:
                self._growing.pop(digest, None)
                self._fresh.pop(digest, None)
            if digest in self._growing:
                self._fresh[digest] = bytes(self._growing.pop(digest))
            if digest in self._fresh:
                data = self._fresh.pop(digest)
                assert chunk_root(len(data), _digests(data)) == digest, "an object is incomplete"
                self.objects[digest] = data
                self.rotten.discard(digest)
            assert digest in self.objects, f"object {digest.hex()[:12]} was never written"
        self.records.update(store.put)
        for key in store.delete:
            self.records.pop(key, None)
        for digest in store.drop:
            self.objects.pop(digest, None)

    def table(self, digest: bytes) -> bytes:
        """Return the chunk digests of an object, joined."""
        return b"".join(_digests(self.read(digest)))

    def _base(self, digest: bytes, number: int) -> bytes | None:
        """One chunk of an object that another builds upon, if it is here."""
        data = b"" if digest in self.rotten else self.objects.get(digest, b"")
        return data[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES] or None

    def chunk(self, digest: bytes, number: int, base: bytes = b"") -> tuple[int, Buffer]:
        """Return (encoding, body) of one chunk for the wire, as a difference where that pays."""
        data = self.read(digest)
        raw = memoryview(data)[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
        item = item_bytes_at(data, number)
        under = self._base(base, number)
        if under is not None:
            self.based.add((digest, base))
        encoding = self.encoding if under is None else Encoding.DELTA
        return encode_chunk(raw, item_bytes=item, encoding=encoding, base=under)

    def discard(self, digest: bytes) -> None:
        """Forget a growing object."""
        self._growing.pop(digest, None)


def _digests(data: bytes) -> list[bytes]:
    return [blake3(data[i : i + CHUNK_BYTES]).digest() for i in range(0, len(data), CHUNK_BYTES)]
