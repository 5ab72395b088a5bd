"""Emulated links: when frames leave, when they arrive, what loss costs; then on real sockets."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import pytest

from mfd.core.effects import Dial
from mfd.net.emulation import HOLD_BYTES, Emulation, Wire
from mfd.net.frames import Frame
from tests.net.worlds import core_of, node, perform, send

MBIT = 1_000_000


class Clock:
    """A loop whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, int, Any]] = []
        self.count = 0

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        self.count += 1
        handle = [call]
        heappush(self.due, (when, self.count, handle))
        return type("Handle", (), {"cancel": lambda _: handle.clear()})()

    def run(self, until: float = 1e9) -> None:
        while self.due and self.due[0][0] <= until:
            self.now, _, handle = heappop(self.due)
            if handle:
                handle[0]()


class Connection:
    """Where frames arrive, and when."""

    def __init__(self, clock: Clock, *, bulk: bool) -> None:
        self.clock = clock
        self.is_bulk = bulk
        self.queue_bytes = 0
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.came: list[tuple[int, float]] = []
        self.left: list[float] = []

    def write_frame(self, frame: Frame, size: int) -> None:
        self.came.append((frame[0][0], self.clock.now - 100.0))

    def on_written(self, size: int) -> None:
        self.left.append(self.clock.now - 100.0)


def world(wire: Wire) -> tuple[Emulation, Clock, Connection, Connection]:
    clock = Clock()
    made = Emulation(wire, random.Random(1))
    made._loop = clock  # type: ignore[assignment]
    return made, clock, Connection(clock, bulk=False), Connection(clock, bulk=True)


def give(made: Emulation, connection: Connection, number: int, size: int) -> None:
    made.take(connection, (bytes([number]),), size)  # type: ignore[arg-type]


async def test_frames_leave_at_the_bandwidth_and_arrive_a_latency_later() -> None:
    """Rules: L-27."""
    made, clock, _, bulk = world(Wire(10_000, 8 * MBIT))  # 1,000 bytes a ms
    for number in range(3):
        give(made, bulk, number, 50_000)
    clock.run()
    assert bulk.came == [(n, pytest.approx(0.06 + 0.05 * n)) for n in range(3)]
    assert bulk.left == pytest.approx([0.0, 0.05, 0.1])
    assert made.waiting(bulk) == 0  # type: ignore[arg-type]


async def test_an_idle_line_saves_no_bandwidth_up() -> None:
    """Rules: L-27."""
    made, clock, _, bulk = world(Wire(0, 8 * MBIT))
    give(made, bulk, 0, 10_000)
    clock.run()
    clock.now += 100
    begin = clock.now - 100.0
    give(made, bulk, 1, 10_000)
    give(made, bulk, 2, 10_000)
    clock.run()
    assert [at - begin for _, at in bulk.came[1:]] == pytest.approx([0.01, 0.02])


async def test_control_goes_before_bulk_that_waits_and_both_share_the_line() -> None:
    """Rules: L-20, L-27."""
    made, clock, control, bulk = world(Wire(1_000, 8 * MBIT))
    for number in range(10):
        give(made, bulk, number, 4_000)
    give(made, control, 99, 1_000)
    clock.run()
    assert control.came == [(99, pytest.approx(0.006))]  # behind the frame that had begun
    assert bulk.came[-1][1] == pytest.approx(0.042)


async def test_a_lost_segment_delays_what_is_behind_it_on_its_connection_only() -> None:
    """Rules: L-28."""
    made, clock, control, bulk = world(Wire(10_000, 0, 0.5))
    made._rate = 0.0
    rolls = iter([0.1, 0.9])
    made._dice = type("Dice", (), {"random": lambda _: next(rolls, 0.9)})()
    give(made, bulk, 0, 1_000)  # lost once, then through
    give(made, bulk, 1, 1_000)
    give(made, control, 2, 1_000)
    clock.run()
    assert control.came == [(2, pytest.approx(0.01))]
    assert bulk.came == [(0, pytest.approx(0.03)), (1, pytest.approx(0.03))]


async def test_loss_keeps_the_order_and_costs_bandwidth_by_the_formula() -> None:
    """Rules: L-28."""
    wire = Wire(10_000, 100 * MBIT, 0.01)
    assert wire.bytes_per_s == pytest.approx(1.22 * 1448 / (0.02 * 0.1))
    made, clock, _, bulk = world(wire)
    for number in range(200):
        give(made, bulk, number % 256, 5_000)
    clock.run()
    assert [number for number, _ in bulk.came] == list(range(200))
    least = 200 * 5_000 / wire.bytes_per_s
    assert least < bulk.came[-1][1] < 1.3 * least + 1.0


async def test_where_the_socket_is_behind_nothing_more_leaves() -> None:
    made, clock, _, bulk = world(Wire(0, 0, 0.0))
    bulk.queue_bytes = HOLD_BYTES + 1
    give(made, bulk, 0, 1_000)
    clock.run(until=101.0)
    assert bulk.came == []
    assert bulk.left == []
    bulk.queue_bytes = 0
    clock.run()
    assert [number for number, _ in bulk.came] == [0]


async def test_frames_of_a_lost_connection_are_dropped() -> None:
    made, clock, control, bulk = world(Wire(5_000, 8 * MBIT))
    give(made, bulk, 0, 50_000)
    give(made, bulk, 1, 50_000)
    bulk.lost.set_result("cut")
    give(made, control, 2, 1_000)
    clock.run()
    assert bulk.came == []
    assert len(control.came) == 1
    assert made.waiting(bulk) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "wrong", [{"latency_us": -1}, {"latency_us": 61_000_000}, {"bandwidth_bps": -1}, {"loss": 1.0}]
)
def test_what_no_link_is_like(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="emulated link"):
        Wire(**wrong)


def test_a_wire_survives_the_hello_and_nonsense_does_not() -> None:
    """Rules: L-29."""
    wire = Wire(5_000, 100 * MBIT, 0.001)
    assert Wire.of_caps(wire.caps()) == wire
    assert Wire.of_caps({"other": 1}) is None
    assert Wire.of_caps({"emulate.loss_ppm": 2_000_000}) is None
    assert Wire.of_caps({"emulate.latency_us": -5}) is None


async def linked(one: Any, other: Any, address: str) -> int:
    perform(one, Dial(address))
    for side in (one, other):
        await core_of(side).wait_for(lambda side=side: core_of(side).links)
    return next(iter(core_of(one).links))


async def test_both_ends_of_a_real_link_shape_what_they_send(tmp_path: Path) -> None:
    """Rules: L-27, L-29."""
    async with node(tmp_path, 1, emulate={}) as other:
        wire = {other.address: Wire(20_000, 80 * MBIT)}
        async with node(tmp_path, 2, emulate=wire) as one:
            link = await linked(one, other, other.address)
            back = next(iter(core_of(other).links))
            clock = asyncio.get_running_loop().time
            for source, target, number in ((one, other, link), (other, one, back)):
                begin, core = clock(), core_of(target)
                for _ in range(16):
                    send(source, number, bytes(62_500), "bulk")
                send(source, number, b"first")
                await core.wait_for(lambda core=core: core.frames)
                assert core.frames == [b"first"]
                assert clock() - begin >= 0.019
                await core.wait_for(lambda core=core: len(core.frames) == 17)
                assert clock() - begin >= 0.119  # 1 MB at 10 MB/s, and the latency
                assert core.frames[1:] == [bytes(62_500)] * 16


async def test_a_listener_that_emulates_nothing_ignores_the_wish(tmp_path: Path) -> None:
    """Rules: L-06, L-29."""
    async with node(tmp_path, 1) as other:
        wire = {other.address: Wire(1_000)}
        async with node(tmp_path, 2, emulate=wire) as one:
            await linked(one, other, other.address)
            gates = [
                link.bulk.gate for made in (one, other) for link in made._transport.links.values()
            ]
            assert gates[0] is not None
            assert gates[1] is None


async def test_what_was_sent_before_a_close_still_arrives(tmp_path: Path) -> None:
    wires: dict[str, Wire] = {}
    async with (
        node(tmp_path, 1, emulate={}) as other,
        node(tmp_path, 2, emulate=wires) as one,
    ):
        wires[other.address] = Wire(50_000)
        link = await linked(one, other, other.address)
        send(one, link, b"last words")
        one._transport.close_link(link, "enough")
        core = core_of(other)
        await core.wait_for(lambda: not core.links)
        assert core.frames == [b"last words"]
