from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from mfd.core.effects import Store
from mfd.core.events import Event, Stored
from mfd.net.disk import Disk
from mfd.net.store import StoreError


async def opened(folder: Path) -> tuple[Disk, list[Event], list[BaseException]]:
    events: list[Event] = []
    errors: list[BaseException] = []
    disk = Disk(events.append, errors.append)
    await disk.open(folder)
    return disk, events, errors


async def test_work_is_answered_in_order_from_one_thread(tmp_path: Path) -> None:
    disk, events, errors = await opened(tmp_path)
    for op in range(50):
        disk.put(Store(op, put=((str(op % 7), b"%d" % op),)))
    rows, name = await disk.call(
        lambda: (disk.store.ledger.rows(), threading.current_thread().name)
    )
    await asyncio.sleep(0)
    assert events == [Stored(op) for op in range(50)]
    assert rows["0"] == b"49"
    assert name.startswith("mfd-store")
    await disk.close(1)
    assert errors == []


async def test_close_drops_what_does_not_finish_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, _, _ = await opened(tmp_path)
    go, begun = threading.Event(), threading.Event()
    perform = disk.store.perform

    def slow(work: Any) -> Any:
        begun.set()
        assert go.wait(10)
        return perform(work)

    monkeypatch.setattr(disk.store, "perform", slow)
    for op in range(3):
        disk.put(Store(op, put=((str(op), b""),)))
    await asyncio.to_thread(begun.wait)
    closing = asyncio.ensure_future(disk.close(0.01))
    await asyncio.wait((closing,), timeout=0.1)
    go.set()
    await closing
    again, _, _ = await opened(tmp_path)
    assert list(again.store.ledger.rows()) == ["0"]
    await again.close(1)


async def test_a_fault_of_the_program_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, events, errors = await opened(tmp_path)
    monkeypatch.setattr(disk.store, "perform", lambda work: 1 // 0)
    disk.put(Store(1))
    await disk.call(lambda: None)
    await asyncio.sleep(0)
    assert isinstance(errors[0], ZeroDivisionError)
    assert events == []
    await disk.close(1)


async def test_a_folder_in_use_leaves_no_thread(tmp_path: Path) -> None:
    disk, _, _ = await opened(tmp_path)
    before = threading.active_count()
    with pytest.raises(StoreError, match="in use"):
        await opened(tmp_path)
    assert threading.active_count() == before
    await disk.close(1)
