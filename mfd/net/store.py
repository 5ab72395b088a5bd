"""Objects and ledger of one peer in one folder, so that nothing promised is ever lost.

    lock                  held while a peer uses the folder
    ledger.sqlite         rows; the only thing that says which objects count
    objects/ab/HEX        whole objects, named by digest, never changed
    incoming/HEX          objects that grow, chunk by chunk
    incoming/HEX.part     what the trainer wrote, not yet checked

Order of a `Store`: fsync each object, rename it, fsync its folder; then one ledger transaction;
then drop. After an error of the disk the store takes nothing more, since a second fsync would lie,
but it goes on reading. Rules of this file: plain calls that block, made from one thread at a time.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mfd.core.effects import Discard, Fetch, FetchTable, Keep, Store
from mfd.core.events import Event, Fetched, FetchFailed, KeepFailed, Kept, Stored, StoreFailed
from mfd.net.files import StoreError, lock, map_file, read_chunks, sync, write_at
from mfd.net.ledger import Ledger, LedgerError
from mfd.packet.chunks import NEEDS_BASE, Encoding, decode_chunk, encode_chunk
from mfd.packet.errors import Fault, PacketError
from mfd.packet.layout import Items, Layout
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import Buffer, LayerObject, chunk_digest, chunk_root
from mfd.packet.task import LayerRef

__all__ = ["DiskStore", "StoreError", "StoreWork"]

StoreWork = Store | Fetch | FetchTable | Keep | Discard

FLOOR_BYTES = 1 << 30  # free space below which nothing more is taken, or ...
FLOOR_SHARE = 20  # ... a twentieth of the disk, whichever is less
FAST_LINK_BYTES_PER_S = 400_000_000  # above it, coding takes longer than sending raw
STALE_SECONDS = 7 * 86_400  # a transfer that rested so long is not taken up again
OPEN_MAX = 64  # objects mapped at once
MISSES_MAX = 2  # chunks in a row that no encoding made smaller, before ...
LOOK_AGAIN = 8  # ... only each so many-th is tried


@dataclass(eq=False, slots=True)
class _Growing:
    """An object on its way in."""

    path: Path
    raw_bytes: int
    chunks: tuple[bytes, ...]
    missing: set[int]


@dataclass(eq=False, slots=True)
class _Whole:
    """A whole object as it is read: mapped, with the digests of its chunks once verified."""

    data: memoryview
    chunks: tuple[bytes, ...]
    items: list[Items] = field(default_factory=list)  # what is in each chunk
    misses: int = 0  # chunks in a row that coding did not make smaller


class DiskStore:
    """The state folder of one peer, locked while it is open.

    Raises: StoreError where the folder is in use by another peer, or cannot be used.
    """

    def __init__(self, folder: Path, *, floor_bytes: int | None = None) -> None:
        self.folder = folder
        self.broken = ""  # why nothing more is taken; empty while all is well
        self.objects: dict[bytes, int] = {}  # whole ones on disk: digest -> raw bytes
        self._growing: dict[bytes, _Growing] = {}
        self._open: dict[bytes, _Whole] = {}  # in the order of use
        self._chunks: dict[bytes, tuple[bytes, ...]] = {}  # verified since the start
        try:
            for place in (folder, folder / "objects", folder / "incoming"):
                place.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise StoreError(f"the state folder {folder} cannot be used: {exc}") from exc
        self._lock = lock(folder)
        try:
            self.ledger = Ledger(folder / "ledger.sqlite")
            self._scan()
            usage = shutil.disk_usage(folder)
        except OSError as exc:
            os.close(self._lock)
            raise StoreError(f"the state folder {folder} cannot be used: {exc}") from exc
        floor = min(FLOOR_BYTES, usage.total // FLOOR_SHARE)
        self._floor_bytes = floor if floor_bytes is None else floor_bytes

    def _scan(self) -> None:
        """Find whole objects; sweep what a trainer or a given-up transfer left behind."""
        for path in (self.folder / "objects").glob("??/*"):
            with suppress(ValueError):  # a stranger's file is left alone
                self.objects[bytes.fromhex(path.name)] = path.stat().st_size
        oldest = time.time() - STALE_SECONDS
        for path in self.incoming.iterdir():
            if path.suffix == ".part" or path.stat().st_mtime < oldest:
                path.unlink()
        for folder in (self.folder, self.folder.parent):
            sync(folder)  # the folders made above survive a power cut

    @property
    def incoming(self) -> Path:
        """The folder where a trainer leaves its results as HEX.part."""
        return self.folder / "incoming"

    def close(self) -> None:
        """Let go of the folder. Growing objects stay and are taken up again."""
        self._open.clear()
        self.ledger.close()
        os.close(self._lock)

    # work asked for by the core

    def perform(self, work: StoreWork) -> Event | None:
        """Carry out one effect; return its answer, also where a disk or a remote failed."""
        match work:
            case Keep():
                return self._keep(work)
            case Store():
                return self._store(work)
            case Fetch() | FetchTable():
                return self._fetch(work)
            case Discard(digest=digest):
                self._growing.pop(digest, None)
                (self.incoming / digest.hex()).unlink(missing_ok=True)
        return None

    def _keep(self, work: Keep) -> Event:
        try:
            if work.digest in self.objects:
                return Kept(work.op)
            if self.broken:
                return KeepFailed(work.op, Fault.LIMIT, f"the store takes no more: {self.broken}")
            growing = self._grow(work)
            at = work.chunk * CHUNK_BYTES
            size = min(CHUNK_BYTES, work.raw_bytes - at)
            if not 0 <= work.chunk < len(work.chunks):
                return KeepFailed(work.op, Fault.ORDER)
            if work.chunk in growing.missing:
                base = self._base(work) if work.encoding in NEEDS_BASE else None
                raw = decode_chunk(work.encoding, work.body, raw_bytes=size, base=base)
                if chunk_digest(raw) != work.chunks[work.chunk]:
                    return KeepFailed(work.op, Fault.DIGEST)
                write_at(growing.path, raw, at)
                growing.missing.discard(work.chunk)
        except PacketError as exc:
            return KeepFailed(work.op, exc.fault)
        except StoreError as exc:
            return KeepFailed(work.op, Fault.LIMIT, str(exc))
        except OSError as exc:
            self._break(exc)
            return KeepFailed(work.op, Fault.LIMIT, f"the disk refused: {exc.strerror}")
        return Kept(work.op)

    def _grow(self, work: Keep) -> _Growing:
        """Find or begin a growing object; what an earlier run left is hashed and used."""
        growing = self._growing.get(work.digest)
        if growing is not None:
            return growing
        if chunk_root(work.raw_bytes, work.chunks) != work.digest:
            raise PacketError(Fault.DIGEST, "chunk table")
        if not 0 < len(work.chunks) == -(-work.raw_bytes // CHUNK_BYTES):
            raise PacketError(Fault.SHAPE, "chunk table")
        path = self.incoming / work.digest.hex()
        missing = set(range(len(work.chunks)))
        if path.exists():
            found = read_chunks(path)
            missing = {i for i in missing if i >= len(found) or found[i] != work.chunks[i]}
        awaited = sum(len(other.missing) for other in self._growing.values())
        if self._free_bytes() - (awaited + len(missing)) * CHUNK_BYTES < self._floor_bytes:
            raise StoreError("the disk of this peer is nearly full")
        with path.open("ab") as file:
            file.truncate(work.raw_bytes)
        growing = _Growing(path, work.raw_bytes, work.chunks, missing)
        self._growing[work.digest] = growing
        return growing

    def _free_bytes(self) -> int:
        return shutil.disk_usage(self.folder).free

    def _store(self, work: Store) -> Event:
        if self.broken:
            return StoreFailed(work.op, self.broken)
        try:
            self._finish([digest for digest in work.objects if digest not in self.objects])
            if work.put or work.delete:
                self.ledger.write(work.put, work.delete)
            for digest in work.drop:
                self._forget(digest)
        except StoreError as exc:  # not the disk's fault: nothing was touched yet
            return StoreFailed(work.op, str(exc))
        except OSError as exc:
            self._break(exc)
            return StoreFailed(work.op, self.broken)
        return Stored(work.op)

    def _finish(self, digests: list[bytes]) -> None:
        """Make growing objects whole ones: synced, renamed, their folders synced."""
        folders: list[Path] = []
        for digest in dict.fromkeys(digests):
            growing = self._growing.get(digest)
            if growing is None or growing.missing:
                raise StoreError(f"object {digest.hex()[:16]} is not complete here")
            sync(growing.path)
        for digest in dict.fromkeys(digests):
            growing = self._growing[digest]
            target = self._place(digest)
            if not target.parent.exists():
                target.parent.mkdir()
                folders.append(target.parent.parent)
            folders.append(target.parent)
            growing.path.rename(target)
            del self._growing[digest]
            self.objects[digest] = growing.raw_bytes
            self._chunks[digest] = growing.chunks
        for folder in dict.fromkeys(folders):
            sync(folder)

    def _forget(self, digest: bytes) -> None:
        self._open.pop(digest, None)
        self._chunks.pop(digest, None)
        if self.objects.pop(digest, None) is not None:
            self._place(digest).unlink(missing_ok=True)

    def _break(self, exc: OSError) -> None:
        if not self.broken:
            self.broken = str(exc) if isinstance(exc, LedgerError) else f"the disk refused: {exc}"

    def _fetch(self, work: Fetch | FetchTable) -> Event:
        try:
            whole = self._whole(work.digest)
            if isinstance(work, FetchTable):
                return Fetched(work.op, Encoding.RAW, b"".join(whole.chunks))
            if not 0 <= work.chunk < len(whole.chunks):
                raise StoreError(f"object {work.digest.hex()[:16]} has no chunk {work.chunk}")
            raw = whole.data[work.chunk * CHUNK_BYTES : (work.chunk + 1) * CHUNK_BYTES]
            if chunk_digest(raw) != whole.chunks[work.chunk]:
                raise StoreError(f"object {work.digest.hex()[:16]} is damaged on disk")
        except OSError as exc:
            return FetchFailed(work.op, str(exc))
        if work.link_bytes_per_s > FAST_LINK_BYTES_PER_S:
            return Fetched(work.op, Encoding.RAW, raw)
        base = self._base(work) if work.base else None
        if base is None and whole.misses >= MISSES_MAX and work.chunk % LOOK_AGAIN:
            return Fetched(work.op, Encoding.RAW, raw)
        items = whole.items[work.chunk]
        wanted = Encoding.PLANES if base is None else Encoding.DELTA
        encoding, body = encode_chunk(
            raw, item_bytes=items.width, floats=items.floats, encoding=wanted, base=base
        )
        whole.misses = whole.misses + 1 if encoding is Encoding.RAW else 0
        return Fetched(work.op, encoding, body)

    def _base(self, work: Fetch | Keep) -> Buffer | None:
        """The chunk of the same index of the base, checked; None where that is not to be had."""
        with suppress(OSError):
            whole = self._whole(work.base)
            raw = whole.data[work.chunk * CHUNK_BYTES : (work.chunk + 1) * CHUNK_BYTES]
            if len(raw) and chunk_digest(raw) == whole.chunks[work.chunk]:
                return raw
        return None

    # whole objects

    def paths(self, digests: Iterable[bytes]) -> dict[bytes, Path]:
        """Where the verified content of objects lies, growing ones included once complete.

        Raises: StoreError where one is missing or damaged.
        """
        found: dict[bytes, Path] = {}
        for digest in digests:
            self._whole(digest)
            growing = self._growing.get(digest)
            found[digest] = self._place(digest) if growing is None else growing.path
        return found

    def layer(self, digest: bytes) -> LayerObject:
        """View an object as `mfd.packet` takes it. Raises: StoreError."""
        whole = self._whole(digest)
        return LayerObject((whole.data,), len(whole.data), whole.chunks, digest)

    def _whole(self, digest: bytes) -> _Whole:
        """Map an object, verified on its first use since the start."""
        whole = self._open.pop(digest, None)
        if whole is None:
            growing = self._growing.get(digest)
            if digest not in self.objects and (growing is None or growing.missing):
                raise StoreError(f"object {digest.hex()[:16]} is not here")
            path = self._place(digest) if growing is None else growing.path
            chunks = self._chunks.get(digest) if growing is None else growing.chunks
            if chunks is None:
                chunks = tuple(read_chunks(path))
                if chunk_root(path.stat().st_size, chunks) != digest:
                    raise StoreError(f"object {digest.hex()[:16]} is damaged on disk")
                self._chunks[digest] = chunks
            data = map_file(path)
            layout = Layout(data)
            whole = _Whole(data, chunks, [layout.chunk(at) for at in range(layout.chunks)])
        self._open[digest] = whole
        if len(self._open) > OPEN_MAX:
            self._open.pop(next(iter(self._open)))
        return whole

    def _place(self, digest: bytes) -> Path:
        name = digest.hex()
        return self.folder / "objects" / name[:2] / name

    # content that comes from this machine

    def adopt(self, layers: Iterable[LayerRef]) -> None:
        """Take each incoming/HEX.part, hashed again, as a complete growing object.

        Raises: StoreError where content has another digest or size, or the disk refuses.
        """
        for ref in layers:
            self._adopt(ref.digest, ref.raw_bytes)

    def _adopt(self, digest: bytes, raw_bytes: int) -> None:
        part = self.incoming / f"{digest.hex()}.part"
        try:
            growing = self._growing.get(digest)
            if digest in self.objects or (growing is not None and not growing.missing):
                part.unlink(missing_ok=True)
                return
            chunks, size = tuple(read_chunks(part)), part.stat().st_size
            if not chunks or size != raw_bytes or chunk_root(size, chunks) != digest:
                part.unlink()
                raise StoreError(f"result {digest.hex()[:16]} does not have the digest it claims")
            path = self.incoming / digest.hex()
            part.rename(path)
        except OSError as exc:
            raise StoreError(str(exc)) from exc
        self._growing[digest] = _Growing(path, size, chunks, set())

    def lacking(self, digests: Iterable[bytes]) -> tuple[bytes, ...]:
        """Those that are neither whole nor growing here."""
        known = self.objects.keys() | self._growing.keys()
        return tuple(digest for digest in digests if digest not in known)

    def room_for(self, size: int) -> None:
        """Raise StoreError where `size` more bytes do not fit."""
        if self.broken:
            raise StoreError(self.broken)
        if self._free_bytes() - size < self._floor_bytes:
            raise StoreError("the disk is nearly full")
