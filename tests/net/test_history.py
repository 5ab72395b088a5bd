"""The story of a walker outlives the peer's restart, bounded and whole line by whole line."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from mfd.core.effects import Report
from mfd.net.history import History
from mfd.net.reports import REPORTS_MAX, START_STEP, Reports
from tests.net.worlds import node, perform


def report(n: int, **fields: Any) -> dict[str, Any]:
    return {"walker": "ab" * 32, "n": n, "at": 1.5, "kind": "stop", **fields}


def test_what_is_kept_is_read_again(tmp_path: Path) -> None:
    history = History(tmp_path)
    assert history.read() == []
    told = [report(n, loss=0.25 * n, peer="a\n\u2028b") for n in range(1, 6)]
    for each in told:
        history.append(each)
    assert History(tmp_path).read() == told


def test_the_file_is_bounded_and_keeps_the_newest(tmp_path: Path) -> None:
    limit = 4_096
    history = History(tmp_path, limit)
    for n in range(1, 500):
        history.append(report(n))
        assert (tmp_path / "history.jsonl").stat().st_size <= limit
    kept = History(tmp_path, limit).read()
    assert kept[-1]["n"] == 499
    assert [each["n"] for each in kept] == list(range(kept[0]["n"], 500))
    assert len(kept) * len(json.dumps(report(499))) > limit // 3
    assert os.listdir(tmp_path) == ["history.jsonl"]


@pytest.mark.parametrize(
    "bad",
    [
        b'{"walker":"ab","n":3,"at":1,"kin',  # the machine stopped in the middle of it
        b"\xff\xfe\n",
        b"[" * 9_000 + b"\n",
        b"7\n",
        b'{"n":3,"at":1,"kind":"linked"}\n',
        b'{"walker":"ab","n":1,"at":1,"kind":"stop"}\n',  # out of order
        b'{"walker":"ab","n":true,"at":1,"kind":"stop"}\n',
        b'{"walker":7,"n":3,"at":1,"kind":"stop"}\n',
    ],
)
def test_a_line_that_cannot_be_read_costs_nothing_but_itself(
    tmp_path: Path, bad: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path)
    history.append(report(1))
    history.append(report(2))
    path = tmp_path / "history.jsonl"
    path.write_bytes(path.read_bytes() + bad)
    again = History(tmp_path)
    with caplog.at_level(logging.WARNING, "mfd"):
        assert again.read() == [report(1), report(2)]
    assert "cannot be read" in caplog.text
    again.append(report(4))
    assert History(tmp_path).read() == [report(1), report(2), report(4)]


def test_a_folder_that_is_gone_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = History(tmp_path / "gone")
    with caplog.at_level(logging.WARNING, "mfd"):
        assert history.read() == []
        history.append(report(1))
        history.append(report(2))
    assert caplog.text.count("cannot be written") == 1


def test_a_busy_network_does_not_push_a_journey_out() -> None:
    reports = Reports()
    reports.add(Report("stop", {"walker": "abcd"}))
    for _ in range(REPORTS_MAX + 5):
        reports.add(Report("linked", {"peer": b"\x01"}))
    assert [each["kind"] for each in reports.after(0, "ab")] == ["stop"]
    numbers = [each["n"] for each in reports.after(0)]
    assert numbers == sorted(numbers)
    assert len(numbers) == REPORTS_MAX + 1


async def test_a_node_tells_the_story_after_a_restart(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    async with node(tmp_path, 1) as one:
        perform(one, Report("stop", {"walker": "abcd", "loss": 0.5}))
        perform(one, Report("linked", {"peer": b"\x01"}))
        before = one.reports(after=0)
    async with node(tmp_path, 1, on_report=seen.append) as one:
        assert one.reports(after=0) == before[:1]
        assert one.reports(after=0, walker="ab") == before[:1]
        assert not one.reports(after=before[-1]["n"])
        perform(one, Report("arrived", {"walker": "abcd"}))
        # whoever has followed it goes on where the peer was stopped
        (fresh,) = one.reports(after=before[-1]["n"])
        assert (fresh["kind"], fresh["n"]) == ("arrived", START_STEP + 1)
        assert seen == [fresh]
    async with node(tmp_path, 1) as one:
        assert [each["kind"] for each in one.reports(after=0)] == ["stop", "arrived"]
