"""Single calls on files: locked, synced, mapped, hashed. They block.

Source: spec/rationale.md, "Store"; mfd.net.store.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable
from pathlib import Path

from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import Buffer, chunk_digest

__all__ = ["StoreError", "lock", "map_file", "read_chunks", "sync", "write_at"]


class StoreError(OSError):
    """The store cannot do what was asked; the sentence says why."""


def lock(folder: Path) -> int:
    """Lock the folder until the process ends. Raises: StoreError naming who has it."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
        os.close(descriptor)
        raise StoreError(
            f"the state folder {folder} is in use by another peer (process {owner}): "
            "stop that one, or choose another folder"
        ) from exc
    os.truncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def write_at(path: Path, raw: Buffer, offset: int) -> None:
    """Write all of `raw` from `offset` on."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        view = memoryview(raw)
        while view:
            count = os.pwrite(descriptor, view, offset)
            view, offset = view[count:], offset + count
    finally:
        os.close(descriptor)


def sync(path: Path) -> None:
    """Force a file's or a folder's content to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def map_file(path: Path) -> memoryview:
    """Show a file's content, to be read."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def read_chunks(path: Path) -> list[bytes]:
    """Digest each chunk of a file."""
    with path.open("rb") as file:
        return [chunk_digest(raw) for raw in iter(_reader(file.read), b"")]


def _reader(read: Callable[[int], bytes]) -> Callable[[], bytes]:
    return lambda: read(CHUNK_BYTES)
