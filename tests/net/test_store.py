from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfd.core.effects import Discard, Fetch, FetchTable, Keep, Store
from mfd.core.events import Fetched, FetchFailed, KeepFailed, Kept, Stored, StoreFailed
from mfd.net.store import DiskStore, StoreError
from mfd.packet.chunks import Encoding, decode_chunk
from mfd.packet.errors import Fault
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import LayerObject, object_digest, pack_layer, unpack_layer
from mfd.packet.task import LayerRef


def layer(seed: int, floats: int = 1000) -> LayerObject:
    values = np.random.default_rng(seed).standard_normal(floats, np.float32)
    return pack_layer({"w": values})


BIG = layer(7, 600_000)  # three chunks, the last one short


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DiskStore]:
    made = DiskStore(tmp_path / "state", floor_bytes=0)
    yield made
    made.close()


def reopen(store: DiskStore) -> DiskStore:
    store.close()
    store.__init__(store.folder, floor_bytes=0)  # type: ignore[misc]
    return store


def keeps(item: LayerObject, op: int = 1) -> list[Keep]:
    raw = item.tobytes()
    return [
        Keep(op, item.digest, item.raw_bytes, number, item.chunks, Encoding.RAW, part)
        for number, part in enumerate(
            raw[at : at + CHUNK_BYTES] for at in range(0, len(raw), CHUNK_BYTES)
        )
    ]


def keep(store: DiskStore, item: LayerObject) -> None:
    for effect in keeps(item):
        assert store.perform(effect) == Kept(1)


def content(store: DiskStore, item: LayerObject) -> bytes:
    out = b""
    for number in range(len(item.chunks)):
        got = store.perform(Fetch(5, item.digest, number))
        assert isinstance(got, Fetched), got
        size = min(CHUNK_BYTES, item.raw_bytes - len(out))
        out += decode_chunk(got.encoding, got.body, raw_bytes=size)
    return out


def test_what_was_stored_is_there_after_a_restart(store: DiskStore) -> None:
    keep(store, BIG)
    assert store.perform(Store(9, objects=(BIG.digest,), put=(("row", b"1"),))) == Stored(9)
    for made in (store, reopen(store)):
        assert made.objects == {BIG.digest: BIG.raw_bytes}
        assert made.ledger.rows() == {"row": b"1"}
        assert content(made, BIG) == BIG.tobytes()
        table = made.perform(FetchTable(4, BIG.digest))
        assert table == Fetched(4, Encoding.RAW, b"".join(BIG.chunks))
    assert store.ledger.boot == 2


def test_chunks_come_in_any_order_and_twice(store: DiskStore) -> None:
    first, second, third = keeps(BIG)
    for effect in (third, first, first, second, third):
        assert store.perform(effect) == Kept(1)
    assert store.perform(Store(2, objects=(BIG.digest,))) == Stored(2)
    assert store.perform(first) == Kept(1)
    assert content(store, BIG) == BIG.tobytes()


def test_a_growing_object_is_taken_up_after_a_restart(store: DiskStore) -> None:
    """What is there is hashed again; a damaged chunk counts as missing."""
    first, second, third = keeps(BIG)
    for effect in (first, third):
        store.perform(effect)
    path = store.incoming / BIG.digest.hex()
    with path.open("r+b") as file:
        file.seek(2 * CHUNK_BYTES)
        file.write(b"rot")
    reopen(store)
    assert store.perform(second) == Kept(1)
    assert isinstance(store.perform(Store(2, objects=(BIG.digest,))), StoreFailed)
    assert store.broken == ""
    reopen(store)
    for effect in (second, third):
        assert store.perform(effect) == Kept(1)
    assert store.perform(Store(2, objects=(BIG.digest,))) == Stored(2)
    assert content(store, BIG) == BIG.tobytes()


def test_a_difference_is_made_and_read_where_the_base_is_whole(
    store: DiskStore, tmp_path: Path
) -> None:
    """A base that is damaged, or not here, is none: the sender goes without, the reader says so.

    Rules: T-28, T-29
    """
    tensors = unpack_layer(BIG.tobytes())
    newer = pack_layer({n: t.array() * np.float32(1.0001) for n, t in tensors.items()})
    other = DiskStore(tmp_path / "other", floor_bytes=0)
    for made in (store, other):
        keep(made, BIG)
        made.perform(Store(1, objects=(BIG.digest,)))
    keep(store, newer)
    got = store.perform(Fetch(2, newer.digest, 0, 0, BIG.digest))
    assert isinstance(got, Fetched)
    assert got.encoding is Encoding.DELTA
    assert len(got.body) < 0.6 * CHUNK_BYTES
    effect = Keep(
        *(3, newer.digest, newer.raw_bytes, 0, newer.chunks),
        *(got.encoding, bytes(got.body), BIG.digest),
    )
    assert other.perform(replace(effect, base=bytes(32))) == KeepFailed(3, Fault.BASE)
    assert other.perform(effect) == Kept(3)
    for made in (store, other):
        with made._place(BIG.digest).open("r+b") as file:
            file.seek(100_000)
            file.write(b"rot")
    plain = store.perform(Fetch(4, newer.digest, 0, 0, BIG.digest))
    assert isinstance(plain, Fetched)
    assert plain.encoding is not Encoding.DELTA
    other.perform(Discard(newer.digest))
    assert other.perform(effect) == KeepFailed(3, Fault.BASE)
    other.close()


def test_encoded_chunks_travel_smaller_and_arrive_equal(store: DiskStore, tmp_path: Path) -> None:
    keep(store, BIG)
    store.perform(Store(1, objects=(BIG.digest,)))
    other = DiskStore(tmp_path / "other", floor_bytes=0)
    sent = 0
    for number in range(3):
        got = store.perform(Fetch(number, BIG.digest, number))
        assert isinstance(got, Fetched)
        sent += len(got.body)
        effect = Keep(
            1, BIG.digest, BIG.raw_bytes, number, BIG.chunks, got.encoding, bytes(got.body)
        )
        assert other.perform(effect) == Kept(1)
    assert sent < 0.95 * BIG.raw_bytes
    other.perform(Store(1, objects=(BIG.digest,)))
    assert content(other, BIG) == BIG.tobytes()
    other.close()


def test_a_fast_link_gets_raw_chunks(store: DiskStore) -> None:
    keep(store, BIG)
    store.perform(Store(1, objects=(BIG.digest,)))
    got = store.perform(Fetch(1, BIG.digest, 0, link_bytes_per_s=1_000_000_000))
    assert got == Fetched(1, Encoding.RAW, BIG.tobytes()[:CHUNK_BYTES])
    slow = store.perform(Fetch(1, BIG.digest, 0, link_bytes_per_s=1_000_000))
    assert isinstance(slow, Fetched)
    assert slow.encoding == Encoding.PLANES


def _wrong_chunk(effect: Keep, **changes: Any) -> Keep:
    fields = {name: getattr(effect, name) for name in Keep.__dataclass_fields__}
    return Keep(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"body": bytes(CHUNK_BYTES)}, Fault.DIGEST),
        ({"body": b"short"}, Fault.ENCODING),
        ({"encoding": 99}, Fault.ENCODING),
        ({"encoding": 1, "body": bytes(50)}, Fault.ENCODING),
        ({"chunk": 3}, Fault.ORDER),
        ({"chunk": -1}, Fault.ORDER),
        ({"chunks": BIG.chunks[:2]}, Fault.DIGEST),
        ({"raw_bytes": 5}, Fault.DIGEST),
        ({"raw_bytes": 0, "chunks": (), "digest": object_digest()}, Fault.SHAPE),
    ],
)
def test_wrong_chunks_are_refused(store: DiskStore, changes: Any, fault: Fault) -> None:
    assert store.perform(_wrong_chunk(keeps(BIG)[0], **changes)) == KeepFailed(1, fault)
    assert store.broken == ""
    keep(store, BIG)


def test_a_full_disk_is_told_before_it_is_full(tmp_path: Path) -> None:
    store = DiskStore(tmp_path, floor_bytes=1 << 60)
    failed = store.perform(keeps(BIG)[0])
    assert failed == KeepFailed(1, Fault.LIMIT, "the disk of this peer is nearly full")
    assert not list(store.incoming.iterdir())
    assert store.broken == ""
    store.close()


def test_discarded_and_dropped_objects_leave_the_disk(store: DiskStore) -> None:
    small = layer(1)
    keep(store, BIG)
    store.perform(Discard(BIG.digest))
    assert not list(store.incoming.iterdir())
    keep(store, small)
    store.perform(Store(1, objects=(small.digest,)))
    assert store.perform(Store(2, drop=(small.digest, BIG.digest))) == Stored(2)
    assert isinstance(store.perform(Fetch(3, small.digest, 0)), FetchFailed)
    assert not [path for path in (store.folder / "objects").rglob("*") if path.is_file()]


@pytest.mark.parametrize("restart", [True, False])
def test_rot_on_the_disk_is_found_when_it_is_read(store: DiskStore, restart: bool) -> None:
    keep(store, BIG)
    store.perform(Store(1, objects=(BIG.digest,)))
    if restart:
        reopen(store)
    path = next((store.folder / "objects").glob("??/*"))
    with path.open("r+b") as file:
        file.seek(CHUNK_BYTES + 5)
        file.write(b"rot")
    got = store.perform(Fetch(1, BIG.digest, 1))
    assert isinstance(got, FetchFailed)
    assert "damaged" in got.reason
    if restart:
        with pytest.raises(StoreError, match="damaged"):
            store.paths([BIG.digest])


def test_results_of_a_trainer_are_hashed_again(store: DiskStore) -> None:
    good, bad = layer(1), layer(2)
    (store.incoming / f"{good.digest.hex()}.part").write_bytes(good.tobytes())
    (store.incoming / f"{bad.digest.hex()}.part").write_bytes(good.tobytes())
    store.adopt([LayerRef(0, "a", good.digest, good.raw_bytes)])
    with pytest.raises(StoreError, match="does not have the digest"):
        store.adopt([LayerRef(0, "b", bad.digest, bad.raw_bytes)])
    with pytest.raises(StoreError):
        store.adopt([LayerRef(0, "c", layer(3).digest, 4)])
    assert store.paths([good.digest])[good.digest].read_bytes() == good.tobytes()
    assert content(store, good) == good.tobytes()
    assert store.perform(Store(1, objects=(good.digest,))) == Stored(1)
    assert store.paths([good.digest])[good.digest].read_bytes() == good.tobytes()
    assert not list(store.incoming.iterdir())


def test_what_a_dead_trainer_or_an_old_transfer_left_is_swept(store: DiskStore) -> None:
    (store.incoming / "ab.part").write_bytes(b"half")
    store.perform(keeps(BIG)[0])
    reopen(store)
    (growing,) = store.incoming.iterdir()
    assert growing.name == BIG.digest.hex()
    os.utime(growing, (0, 0))
    reopen(store)
    assert not list(store.incoming.iterdir())


def test_a_file_of_somebody_else_is_left_alone(store: DiskStore) -> None:
    stray = store.folder / "objects" / "ab" / "README"
    stray.parent.mkdir()
    stray.write_text("hello")
    reopen(store)
    assert store.objects == {}
    assert stray.exists()


def test_two_peers_cannot_share_a_folder(store: DiskStore) -> None:
    with pytest.raises(StoreError, match=rf"in use by another peer \(process {os.getpid()}\)"):
        DiskStore(store.folder)


def test_a_folder_that_cannot_be_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        DiskStore(tmp_path / "file")
    (tmp_path / "ledger.sqlite").write_text("x" * 2000)
    with pytest.raises(StoreError, match="cannot be used"):
        DiskStore(tmp_path)
    (tmp_path / "ledger.sqlite").unlink()
    DiskStore(tmp_path).close()  # the lock was let go


def test_the_order_is_objects_then_folders_then_ledger_then_drop(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = layer(1), layer(2)
    keep(store, old)
    store.perform(Store(1, objects=(old.digest,)))
    keep(store, new)
    steps: list[str] = []
    fsync, rename, unlink, write = os.fsync, Path.rename, Path.unlink, store.ledger.write

    def on_fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        steps.append(f"fsync {path.relative_to(store.folder).parts[0]} {path.is_dir()}")
        fsync(descriptor)

    def on_rename(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    def on_unlink(path: Path, missing_ok: bool = False) -> None:
        steps.append("unlink")
        unlink(path, missing_ok)

    def on_write(*args: Any) -> None:
        steps.append("ledger")
        write(*args)

    monkeypatch.setattr(os, "fsync", on_fsync)
    monkeypatch.setattr(Path, "rename", on_rename)
    monkeypatch.setattr(Path, "unlink", on_unlink)
    monkeypatch.setattr(store.ledger, "write", on_write)
    effect = Store(2, objects=(new.digest,), put=(("row", b""),), drop=(old.digest,))
    assert store.perform(effect) == Stored(2)
    assert steps == [
        "fsync incoming False",
        "rename",
        "fsync objects True",  # objects/: a new folder ab in it
        "fsync objects True",  # objects/ab
        "ledger",
        "unlink",
    ]


@pytest.mark.parametrize("place", ["fsync", "rename", "pwrite", "ledger"])
def test_after_an_error_of_the_disk_nothing_more_is_taken_but_reading_goes_on(
    store: DiskStore, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    old, new, later = layer(1), layer(2), layer(3)
    keep(store, old)
    store.perform(Store(1, objects=(old.digest,), put=(("old", b"1"),)))

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        if place != "pwrite":
            keep(store, new)
        target, name = {
            "fsync": (os, "fsync"),
            "pwrite": (os, "pwrite"),
            "rename": (Path, "rename"),
            "ledger": (store.ledger, "write"),
        }[place]
        patch.setattr(target, name, fail)
        if place == "pwrite":
            refused = store.perform(keeps(new)[0])
            assert refused == KeepFailed(1, Fault.LIMIT, "the disk refused: Input/output error")
        effect = Store(2, objects=(new.digest,), put=(("new", b"1"),), drop=(old.digest,))
        failed = store.perform(effect)
        assert isinstance(failed, StoreFailed)
        assert "Input/output error" in failed.reason
    # The disk works again, but what it said before cannot be trusted.
    assert isinstance(store.perform(Store(3, put=(("later", b""),))), StoreFailed)
    refused = store.perform(keeps(later)[0])
    assert isinstance(refused, KeepFailed)
    assert "Input/output error" in refused.reason
    assert content(store, old) == old.tobytes()
    assert store.ledger.rows() == {"old": b"1"}
    reopen(store)
    assert store.perform(Store(4, put=(("later", b""),))) == Stored(4)


WORKER = """
import sys
from pathlib import Path
from mfd.core.effects import Store
from mfd.core.events import Stored
from mfd.net.store import DiskStore
from tests.net.test_store import keep, layer

store = DiskStore(Path(sys.argv[1]), floor_bytes=0)
print("open", flush=True)
seed, last = 1000 * store.ledger.boot, None
while True:
    item = layer(seed, 40_000)
    keep(store, item)
    drop = () if last is None else (last.digest,)
    delete = () if last is None else (last.digest.hex(),)
    put = ((item.digest.hex(), b"%d" % seed),)
    store.perform(Store(seed, objects=(item.digest,), put=put, delete=delete, drop=drop))
    print(seed, flush=True)
    seed, last = seed + 1, item
"""


def test_kill_dash_nine_at_any_point_loses_nothing_that_was_promised(tmp_path: Path) -> None:
    dice = random.Random(5)
    for _ in range(6):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        with worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "open\n"
            promised = 0
            for _ in range(dice.randint(1, 12)):
                promised = int(worker.stdout.readline())
            os.kill(worker.pid, signal.SIGKILL)
            promised = max([promised, *map(int, worker.stdout.read().split())])
        store = DiskStore(tmp_path, floor_bytes=0)
        rows = store.ledger.rows()
        assert max(int(seed) for seed in rows.values()) >= promised
        for digest, seed in rows.items():
            item = layer(int(seed), 40_000)
            assert item.digest.hex() == digest
            assert content(store, item) == item.tobytes(), "a row names a broken object"
        # Objects without a row are waste, told to the core at the start; never more than two.
        named = [bytes.fromhex(row) for row in rows]
        waste = tuple(set(store.objects) - set(named))
        assert len(waste) <= 2
        store.perform(Store(0, drop=waste))
        newest = max(rows, key=lambda row: int(rows[row]))
        store.perform(Store(1, delete=tuple(row for row in rows if row != newest)))
        for path in store.incoming.iterdir():
            path.unlink()
        store.close()
