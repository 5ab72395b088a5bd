"""Circuits over relays: credit at every hop, and every way in which one can end."""

from __future__ import annotations

import pytest

from mfd.core.circuit import Circuit
from mfd.core.config import Config
from mfd.core.frames import Class, Credit, Data, End, Open, Opened, Reset, ResetCode
from tests.core.circuit_world import Ear, Line


def opened(line: Line, cls: Class = Class.BULK) -> tuple[Circuit, Ear, Ear]:
    first, last = line.order[0], line.order[-1]
    circuit, ear = line.nodes[first].connect(last, cls)
    assert circuit is not None
    line.settle()
    return circuit, ear, line.nodes[last].ears[-1]


def empty(line: Line) -> bool:
    return all(len(node.circuits) == 0 for node in line.nodes.values())


@pytest.mark.parametrize("names", ["ab", "abc", "abcde"])
def test_open_over_relays(names: str) -> None:
    """Rules: T-03, T-04"""
    line = Line(names)
    circuit, ear, far = opened(line)
    assert ear.said == ["opened"]
    assert far.said == ["opened"]
    assert circuit.answer == b"answer to hello"
    assert circuit.hops == far.circuit.hops == len(names) - 1


@pytest.mark.parametrize("size", [1, 4_095, 4_096, 4_097, 100_000])
def test_bytes_arrive_whole_and_credit_is_never_exceeded(size: int) -> None:
    """Rules: T-05, T-06, T-07"""
    line = Line("abcd")
    circuit, ear, far = opened(line)
    data = bytes(i * 7 % 251 for i in range(size))
    circuit.send(data[: size // 2], data[size // 2 :])
    circuit.end()
    line.settle()  # collect() checks every frame against the credit of its hop
    assert bytes(far.got) == data
    assert ear.said[-1] is None
    assert far.said[-1] is None
    assert empty(line)
    assert line.most_queued <= 2 * line.config.bulk_window_bytes  # one window a relay, two relays


def test_both_directions_at_once() -> None:
    """Rules: T-05"""
    line = Line("abc")
    circuit, ear, far = opened(line, Class.THIN)
    circuit.send(b"x" * 5_000)
    far.circuit.send(b"y" * 7_000)
    circuit.end()
    line.settle()
    assert bytes(far.got) == b"x" * 5_000
    assert bytes(ear.got) == b"y" * 7_000
    assert empty(line)


def test_a_receiver_that_gives_nothing_back_stops_the_sender() -> None:
    """Rules: T-05, T-06"""
    line = Line("abc")
    line.nodes["c"].consume = False
    circuit, _, far = opened(line)
    circuit.send(bytes(100_000))
    line.settle()
    window = line.config.bulk_window_bytes
    assert len(far.got) == window
    assert circuit.queued == 100_000 - 2 * window  # one window more lies at the relay
    far.circuit.consumed(window)
    line.settle()
    assert len(far.got) == 2 * window


def test_data_is_split_to_the_credit_and_the_frame_limit() -> None:
    """Rules: T-02, T-05"""
    line = Line("ab", Config(bulk_window_bytes=300_000))
    circuit, _, far = opened(line)
    circuit.send(bytes(250_000))
    line.settle()
    assert len(far.got) == 250_000
    assert line.largest == 64 << 10


def test_more_than_the_credit_resets_the_circuit() -> None:
    """Rules: T-06"""
    line = Line("abc")
    circuit, ear, far = opened(line)
    relay = line.nodes["b"].circuits
    label = circuit.first.label
    relay.on_data(0, Data(label, memoryview(bytes(line.config.bulk_window_bytes + 1))))
    line.settle()
    assert ear.said[-1] is ResetCode.REFUSED
    assert far.said[-1] is ResetCode.REFUSED
    assert empty(line)
    assert line.nodes["b"].ctx.counters["credit_violations"] == 1


def test_data_before_opened_resets_the_circuit() -> None:
    """Rules: T-06"""
    line = Line("abc")
    circuit, ear = line.nodes["a"].connect("c")
    line.step()
    line.nodes["b"].circuits.on_data(0, Data(circuit.first.label, memoryview(b"early")))
    line.settle()
    assert ear.said == [ResetCode.REFUSED]
    assert empty(line)


def test_data_on_an_unknown_circuit_is_reset() -> None:
    """Rules: T-10"""
    line = Line("ab")
    line.nodes["b"].circuits.on_data(0, Data(77, memoryview(b"?")))
    line.collect()
    assert line.frames == [("b", Reset(77, ResetCode.UNKNOWN, 0))]


def test_other_frames_on_an_unknown_circuit_are_ignored() -> None:
    """Rules: T-10"""
    line = Line("ab")
    circuits = line.nodes["b"].circuits
    circuits.on_credit(0, Credit(77, 5))
    circuits.on_end(0, End(77))
    circuits.on_reset(0, Reset(77, ResetCode.BUSY, 0))
    circuits.on_opened(0, Opened(77, b"", 1, 0, 0))
    line.collect()
    assert line.frames == []


@pytest.mark.parametrize("end", ["a", "d"])
def test_a_reset_reaches_both_ends(end: str) -> None:
    """Rules: T-09"""
    line = Line("abcd")
    circuit, ear, far = opened(line)
    (circuit if end == "a" else far.circuit).reset(ResetCode.REFUSED)
    line.settle()
    told, silent = (far, ear) if end == "a" else (ear, far)
    assert told.said[-1] is ResetCode.REFUSED
    assert silent.said == ["opened"]  # who resets is not told
    assert empty(line)


@pytest.mark.parametrize("link", [0, 1, 2])
def test_a_link_that_goes_down_resets_onwards(link: int) -> None:
    """Rules: T-09"""
    line = Line("abcd")
    _, ear, far = opened(line)
    line.cut(link)
    line.settle()
    assert ear.said[-1] is ResetCode.LINK_DOWN
    assert far.said[-1] is ResetCode.LINK_DOWN
    assert empty(line)


def test_a_listener_may_open_again_while_its_link_goes_down() -> None:
    """Rules: T-09"""
    line = Line("ab")
    node = line.nodes["a"]
    tried: list[object] = []

    class Eager(Ear):
        def closed(self, circuit: Circuit, code: ResetCode | None) -> None:
            tried.append(node.connect("b")[0])

    node.circuits.connect(line.nodes["b"].id, Class.THIN, None, b"", Eager())
    line.settle()
    line.cut(0)
    assert tried == [None]


def test_a_circuit_that_is_gone_sends_nothing() -> None:
    """Rules: T-09"""
    line = Line("abc")
    circuit, _, far = opened(line)
    far.circuit.reset(ResetCode.BUSY)
    line.settle()
    line.frames.clear()
    assert not circuit.sendable
    circuit.end()
    circuit.consumed(1 << 20)
    line.collect()
    assert line.frames == []


def test_the_same_nonce_twice_is_a_loop() -> None:
    """Rules: T-08"""
    line = Line("abc")
    line.nodes["a"].connect("c")
    line.step()
    frame = next(f for name, f in line.frames if isinstance(f, Open))
    again = Open(999, frame.target, frame.via, (), frame.nonce, 2, frame.cls, b"")
    line.nodes["b"].circuits.on_open(0, again)
    line.collect()
    assert ("b", Reset(999, ResetCode.LOOP, 0)) in line.frames


def test_more_than_64_hops() -> None:
    """Rules: T-08"""
    line = Line("ab")
    target = line.nodes["b"].id
    line.nodes["b"].circuits.on_open(0, Open(1, target, None, (), bytes(16), 65, Class.THIN, b""))
    line.collect()
    assert line.frames == [("b", Reset(1, ResetCode.HOPS, 0))]


@pytest.mark.parametrize(("cls", "limit"), [(Class.BULK, 3), (Class.THIN, 5)])
def test_a_full_link_is_busy(cls: Class, limit: int) -> None:
    """Rules: T-08"""
    line = Line("abc", Config(bulk_per_link_max=3, thin_per_link_max=5))
    ears = [line.nodes["a"].connect("c", cls)[1] for _ in range(limit + 1)]
    line.settle()
    assert [ear.said[0] for ear in ears] == ["opened"] * limit + [ResetCode.BUSY]
    _, other = line.nodes["a"].connect("c", Class.THIN if cls is Class.BULK else Class.BULK)
    line.settle()
    assert other.said == ["opened"]  # each class has its own limit


def test_no_way_on() -> None:
    """Rules: T-08"""
    line = Line("abc")
    _, ear = line.nodes["a"].connect("c")
    line.nodes["b"].next_hop = lambda via, cls: None
    line.nodes["b"].circuits._next_hop = line.nodes["b"].next_hop
    line.nodes["b"].circuits._neighbours.clear()
    line.settle()
    assert ear.said == [ResetCode.NO_ROUTE]
    assert empty(line)


def test_the_acceptor_may_refuse() -> None:
    """Rules: T-08"""
    line = Line("abc")
    line.nodes["c"].refuse = ResetCode.REFUSED
    _, ear = line.nodes["a"].connect("c")
    line.settle()
    assert ear.said == [ResetCode.REFUSED]
    assert empty(line)


@pytest.mark.parametrize("label", [2, 1])
def test_labels_belong_to_who_dials_and_are_used_once(label: int) -> None:
    """Rules: T-01"""
    line = Line("ab")
    opened(line)  # label 1 is taken by a, who dialled the link; even ones are b's
    frame = Open(label, line.nodes["b"].id, None, (), b"n" * 16, 1, Class.THIN, b"")
    line.nodes["b"].circuits.on_open(0, frame)
    line.collect()
    assert line.frames[-1] == ("b", Reset(label, ResetCode.REFUSED, 0))


def test_an_opening_that_is_never_answered() -> None:
    """Rules: T-11"""
    line = Line("abc")
    _, ear = line.nodes["a"].connect("c")
    line.step()
    line.cut(1)
    line.queues.clear()
    line.wait(line.config.opening_us)
    assert ear.said == [ResetCode.STALLED]


def test_bytes_that_do_not_move_are_stalled() -> None:
    """Rules: T-11"""
    line = Line("abc")
    line.nodes["c"].consume = False
    circuit, ear, far = opened(line, Class.THIN)
    circuit.send(bytes(10_000))
    line.settle()
    line.wait(line.config.stalled_us + 1)
    line.wait(line.config.stalled_us)
    line.settle()
    assert ear.said[-1] is ResetCode.STALLED
    assert far.said[-1] is ResetCode.STALLED
    assert empty(line)


@pytest.mark.parametrize(("cls", "lives"), [(Class.THIN, True), (Class.BULK, False)])
def test_only_thin_circuits_may_stand_idle(cls: Class, lives: bool) -> None:
    """Rules: T-11"""
    line = Line("abc")
    opened(line, cls)
    for _ in range(4):
        line.wait(line.config.stalled_us)
        line.settle()
    assert empty(line) is not lives


def test_the_end_waits_for_what_is_queued() -> None:
    """Rules: T-09"""
    line = Line("ab")
    line.nodes["b"].consume = False
    circuit, ear, far = opened(line)
    circuit.send(bytes(10_000))
    circuit.end()
    line.settle()
    assert not any(isinstance(f, End) for _, f in line.frames)
    while len(far.got) < 10_000:
        far.circuit.consumed(1_024)
        line.settle()
    assert ear.said[-1] is None
    assert [name for name, f in line.frames if isinstance(f, End)] == ["a", "b"]


def test_a_neighbour_has_a_quarter_of_the_memory_and_then_is_told_busy() -> None:
    """Rules: T-18"""
    config = Config(
        bulk_window_bytes=256 << 10, circuit_bytes_max=4 * 3 * ((256 << 10) + (8 << 10))
    )
    line = Line("abc", config)
    made = [line.nodes["a"].connect("c") for _ in range(4)]
    line.settle()
    assert [ear.said for _, ear in made] == [["opened"]] * 3 + [[ResetCode.BUSY]]
    relay = line.nodes["b"].circuits
    assert relay._reserve.held == 3 * (264 << 10)
    made[0][0].reset(ResetCode.REFUSED)
    line.settle()
    assert relay._reserve.held == 2 * (264 << 10)
    assert line.nodes["a"].connect("c")[1].said == []
    line.settle()
    assert len(line.nodes["c"].ears) == 4


def test_a_neighbour_opens_32_at_once_and_10_a_second() -> None:
    """Rules: T-19"""
    line = Line("ab")
    ears = [line.nodes["a"].connect("b", Class.THIN)[1] for _ in range(34)]
    line.settle()
    assert [ear.said[0] for ear in ears] == ["opened"] * 32 + [ResetCode.BUSY] * 2
    assert {f.retry_us for _, f in line.frames if isinstance(f, Reset)} == {1_000_000}
    line.wait(200_000)
    ears = [line.nodes["a"].connect("b", Class.THIN)[1] for _ in range(3)]
    line.settle()
    assert [ear.said[0] for ear in ears] == ["opened"] * 2 + [ResetCode.BUSY]


def stream(line: Line, circuit: Circuit, size: int, step_us: int) -> None:
    """Send with time that passes between frames."""
    circuit.send(bytes(size))
    while line.step():
        line.wait(step_us)


def test_a_window_grows_with_what_the_link_carries_and_is_set_aside() -> None:
    """Rules: T-17, T-18"""
    line = Line("abc", Config(bulk_window_bytes=256 << 10))
    circuit, _, far = opened(line)
    relay = line.nodes["b"].circuits
    first = next(iter(relay._links[0].values()))
    assert first.first.window == 256 << 10
    stream(line, circuit, 20 << 20, 5_000)  # much comes in a round trip
    assert len(far.got) == 20 << 20
    assert 256 << 10 < first.first.window <= 4 << 20
    assert relay._reserve.held == first.first.window + (8 << 10)
    assert relay._reserve.held <= 16 << 20
    assert first.second.window == 8 << 10
    circuit.reset(ResetCode.REFUSED)
    line.settle()
    assert relay._reserve.held == 0
    again, _, _ = opened(line)  # what was measured is used from the start
    assert next(iter(relay._links[0].values())).first.window > 256 << 10
    assert again.open


def test_a_window_does_not_grow_beyond_the_memory() -> None:
    """Rules: T-18"""
    line = Line("abc", Config(bulk_window_bytes=256 << 10, circuit_bytes_max=4 * (300 << 10)))
    circuit, _, _ = opened(line)
    stream(line, circuit, 20 << 20, 5_000)
    assert line.nodes["b"].circuits._reserve.held <= 300 << 10


def test_a_trickle_does_not_hold_a_bulk_circuit() -> None:
    """Rules: T-11"""
    line = Line("abc")
    circuit, ear, _ = opened(line)
    for _ in range(40):
        if circuit.gone:
            break
        circuit.send(b"x")
        line.settle()
        line.wait(1_000_000)
    line.settle()
    assert ear.said[-1] is ResetCode.STALLED


def test_small_frames_that_wait_lie_close_together() -> None:
    """Rules: T-20"""
    line = Line("abc")
    line.nodes["c"].consume = False
    circuit, _, _ = opened(line)
    relay = line.nodes["b"].circuits
    circuit.send(bytes(4_096))
    line.settle()  # c has its window full
    receive_buffer = memoryview(bytearray(256 << 10))
    inside = next(iter(relay._links[0].values()))
    for at in range(1_000):
        receive_buffer[at] = at % 251
        relay.on_data(0, Data(inside.first.label, receive_buffer[at : at + 1]))
    waiting = inside.second
    assert waiting.queued == 1_000
    assert len(waiting.queue) <= 1
    assert all(part.obj is not receive_buffer.obj for part in waiting.queue)
    assert bytes(waiting.pull(5_000)) == bytes(at % 251 for at in range(1_000))


def test_a_relay_returns_credit_when_its_link_has_taken_the_bytes() -> None:
    """Rules: T-05, T-22"""
    line = Line("abc")
    relay = line.nodes["b"].circuits
    relay.link_down(1)
    relay.link_up(1, line.nodes["c"].id, outbound=True, paced=True)
    circuit, _, far = opened(line)
    line.frames.clear()
    circuit.send(bytes(4_096))
    line.settle()
    back = lambda: sum(f.amount for n, f in line.frames if n == "b" and isinstance(f, Credit))  # noqa: E731
    assert len(far.got) == 4_096
    assert back() == 0
    relay.written(1, 4_096 + 9)
    line.settle()
    assert back() == 4_096
