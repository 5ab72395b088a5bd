"""Turns on a link: neighbours first, then their circuits, and little in the driver's hands."""

from __future__ import annotations

from collections import Counter

from mfd.core.circuit import Circuit, Leg
from mfd.core.frames import Class
from mfd.core.outbox import DRIVER_BYTES, FRAME_HEAD_BYTES, Outbox

FRAME = 64 << 10


class Bench:
    """An outbox whose frames are counted by circuit."""

    def __init__(self, *, paced: bool = True, measured: bool = True) -> None:
        self.now_us = 0
        self.sent: list[tuple[str, int]] = []
        self.gone: Counter[str] = Counter()
        self.names: dict[Leg, str] = {}
        self.outbox = Outbox(
            paced=paced,
            frame_bytes_max=FRAME,
            emit=self.emit,
            left=lambda _, leg, size: self.gone.update({self.names[leg]: size}),
            now=lambda: self.now_us,
        )
        self.told = 0
        self.outbox.meter.rate = 20_000_000 if measured else 0

    def emit(self, circuit: Circuit, leg: Leg, limit: int) -> int:
        piece = leg.pull(min(leg.credit, limit))
        leg.credit -= len(piece)
        self.sent.append((self.names[leg], len(piece)))
        return len(piece)

    def leg(self, name: str, source: int | None, size: int, credit: int = 1 << 40) -> Leg:
        """A leg out of link 0 with bytes that came by link `source`, or begin here."""
        leg = Leg(0, len(self.names))
        circuit = Circuit(None, Class.BULK, name.encode(), leg)  # type: ignore[arg-type]
        if source is not None:
            circuit.second = Leg(source, 1)
        leg.credit = credit
        leg.push([memoryview(bytes(size))])
        self.names[leg] = name
        self.outbox.offer(circuit, leg)
        return leg

    def write(self, frames: int = 1) -> None:
        """The driver says that more frames have left."""
        for _ in range(frames):
            if self.told < len(self.sent):
                self.now_us += 3_000
                self.told += 1
                self.outbox.written(self.sent[self.told - 1][1] + FRAME_HEAD_BYTES)

    def shares(self, since: int = 0) -> Counter[str]:
        out: Counter[str] = Counter()
        for name, size in self.sent[since:]:
            out[name] += size
        return out


def test_little_is_in_the_drivers_hands() -> None:
    """Rules: T-22"""
    bench = Bench()
    bench.leg("a", 1, 10 * DRIVER_BYTES)
    assert sum(bench.shares().values()) == DRIVER_BYTES
    bench.write()
    assert sum(bench.shares().values()) == DRIVER_BYTES + FRAME
    assert bench.gone == {"a": FRAME}


def test_neighbours_share_alike_however_many_circuits_they_have() -> None:
    """Rules: T-21"""
    bench = Bench()
    for number in range(4):
        bench.leg(f"busy{number}", 1, 64 * FRAME)
    bench.leg("single", 2, 64 * FRAME)
    bench.leg("own", None, 64 * FRAME)
    begin = len(bench.sent)
    bench.write(90)
    shares = bench.shares(begin)
    busy = sum(size for name, size in shares.items() if name.startswith("busy"))
    assert abs(busy - shares["single"]) <= 2 * FRAME
    assert abs(busy - shares["own"]) <= 2 * FRAME
    assert max(shares[f"busy{n}"] for n in range(4)) <= busy / 4 + FRAME


def test_small_frames_do_not_cost_a_neighbour_its_share() -> None:
    """Rules: T-21"""
    bench = Bench()
    small = [bench.leg(f"small{n}", 1, 20_000) for n in range(30)]
    bench.leg("large", 2, 40 * FRAME)
    begin = len(bench.sent)
    while any(leg.queued for leg in small):
        bench.write()
    shares = bench.shares(begin)
    assert abs(sum(shares.values()) - 2 * shares["large"]) <= 6 * FRAME


def test_without_credit_there_is_no_turn_to_wait_for() -> None:
    """Rules: T-21"""
    bench = Bench()
    bench.leg("poor", 1, 10 * FRAME, credit=1_000)
    bench.leg("rich", 2, 10 * FRAME)
    bench.write(12)
    assert bench.shares() == {"poor": 1_000, "rich": 10 * FRAME}


def test_a_circuit_that_is_gone_loses_its_turn() -> None:
    """Rules: T-21"""
    bench = Bench()
    bench.leg("first", 1, 8 * FRAME)
    leg = bench.leg("second", 1, 8 * FRAME)
    for ready in bench.outbox._ready.values():
        for circuit, other in ready:
            circuit.gone = other is leg
    bench.write(20)
    assert bench.shares()["first"] == 8 * FRAME
    assert bench.shares()["second"] < 8 * FRAME


def test_frames_are_small_on_a_slow_link() -> None:
    """Rules: T-21"""
    bench = Bench(measured=False)
    bench.leg("a", 1, 100 * FRAME)
    assert {size for _, size in bench.sent} == {16 << 10}  # not yet measured
    for rate, size in ((200_000, 4 << 10), (2_000_000, 10_000), (10**9, FRAME)):
        bench.outbox.meter.rate = rate
        assert bench.outbox.frame_bytes == size


def test_where_nobody_tells_what_has_left_all_leaves_at_once() -> None:
    """Rules: T-22"""
    bench = Bench(paced=False)
    bench.leg("a", 1, 10 * DRIVER_BYTES)
    assert bench.shares() == bench.gone == {"a": 10 * DRIVER_BYTES}
