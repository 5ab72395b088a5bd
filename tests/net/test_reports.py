from __future__ import annotations

import asyncio
from typing import Any

from mfd.core.effects import Report
from mfd.net.reports import REPORTS_MAX, Reports


def test_reports_are_numbered_and_ready_for_json() -> None:
    seen: list[dict[str, Any]] = []
    reports = Reports(seen.append)
    reports.add(Report("linked", {"peer": b"\xab\xcd", "cost": 3}))
    reports.add(Report("moved", {"walker": "abcd"}))
    first, second = reports.after(0)
    assert (first["n"], first["kind"], first["peer"], first["cost"]) == (1, "linked", "abcd", 3)
    assert reports.after(1) == [second] == reports.after(0, "ab")
    assert reports.after(2) == reports.after(0, "b") == reports.after(99) == []
    assert seen == [first, second]


def test_the_ring_forgets_the_oldest() -> None:
    reports = Reports()
    for _ in range(REPORTS_MAX + 5):
        reports.add(Report("x"))
    kept = reports.after(0)
    assert (kept[0]["n"], kept[-1]["n"], len(kept)) == (6, REPORTS_MAX + 5, REPORTS_MAX)


async def test_waiting_ends_with_a_report_or_with_the_time() -> None:
    reports = Reports()
    waiting = asyncio.ensure_future(reports.wait(0, 60))
    await asyncio.sleep(0)
    reports.add(Report("x"))
    await waiting
    await reports.wait(0, 60)
    await reports.wait(1, 0.001)
    assert not reports._waiters
