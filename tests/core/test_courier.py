"""Signed messages over thin circuits that open by themselves."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.core.courier import IDLE_US, WAITING_MAX, Courier
from mfd.core.frames import Class, End, Open, Via
from mfd.core.messages import Kind, Message, encode_message
from tests.core.circuit_world import Line, Node

ID = bytes(32)


class Post(Line):
    """A courier at every node of a line."""

    def __init__(self, names: str = "abc") -> None:
        super().__init__(
            names,
            Config(thin_window_bytes=512, bulk_window_bytes=4_096, bulk_window_max_bytes=4_096),
        )
        self.got: dict[str, list[Message]] = {name: [] for name in names}
        self.couriers: dict[str, Courier] = {}
        for name, node in self.nodes.items():
            courier = Courier(node.ctx, lambda n=node: n.circuits, self.via, self.got[name].append)
            self.couriers[name] = courier
            node.circuits._accept = lambda circuit, _, c=courier: c.accept(circuit)

    def via(self, peer: bytes, cls: Class) -> Via | None:
        name = next((n for n, node in self.nodes.items() if node.id == peer), None)
        return None if name is None else Via(name, peer, 0, 100)

    def send(self, source: str, target: str, number: int) -> None:
        peer = self.nodes[target].id
        self.couriers[source].send(peer, Kind.PROGRESS_ACK, ID, number)

    def numbers(self, name: str) -> list[int]:
        return [message.body[1] for message in self.got[name]]

    def opens(self) -> list[str]:
        return [name for name, frame in self.frames if isinstance(frame, Open)]


def test_messages_arrive_in_order_over_one_circuit() -> None:
    """Rules: C-03"""
    post = Post()
    for number in range(20):  # far more than one window
        post.send("a", "c", number)
    post.settle()
    assert post.numbers("c") == list(range(20))
    assert post.opens() == ["a", "b"]
    assert post.got["c"][0].sender == post.nodes["a"].id


def test_an_answer_takes_the_circuit_that_stands() -> None:
    """Rules: C-03"""
    post = Post()
    post.send("a", "c", 1)
    post.settle()
    post.send("c", "a", 2)
    post.settle()
    assert post.numbers("a") == [2]
    assert post.opens() == ["a", "b"]


def test_a_circuit_that_breaks_is_opened_again_for_what_waits() -> None:
    """Rules: T-15"""
    post = Post()
    post.send("a", "c", 1)
    post.collect()
    post.cut(0)
    post.nodes["a"].circuits.link_up(0, post.nodes["b"].id, outbound=True)
    post.nodes["b"].circuits.link_up(0, post.nodes["a"].id, outbound=False)
    post.wait(1_300_000)
    post.settle()
    assert post.numbers("c") == [1]


def test_after_three_retries_messages_are_dropped() -> None:
    """Rules: T-15"""
    post = Post()
    nobody = bytes((9,)) * 32
    for number in range(3):
        post.couriers["a"].send(nobody, Kind.PROGRESS_ACK, ID, number)
    counters = post.nodes["a"].ctx.counters
    for delay in (1_300_000, 2_300_000):
        post.wait(delay)
        assert "messages_dropped" not in counters
    post.wait(4_300_000)
    assert counters["messages_dropped"] == 3
    assert not post.couriers["a"]._lines


def test_no_more_than_64_messages_wait_for_one_peer() -> None:
    """Rules: C-03"""
    post = Post()
    for number in range(WAITING_MAX + 10):
        post.send("a", "c", number)
    assert len(post.couriers["a"]._lines[post.nodes["c"].id].messages) == WAITING_MAX
    post.settle()
    assert post.numbers("c") == list(range(10, WAITING_MAX + 10))  # the oldest went


def test_a_peer_that_grants_no_credit_costs_no_memory() -> None:
    """Rules: C-03"""
    post = Post("ab")
    post.nodes["b"].circuits.give_back = lambda *_: None
    for number in range(500):
        post.send("a", "b", number)
        post.settle()
    line = post.couriers["a"]._lines[post.nodes["b"].id]
    assert len(line.messages) <= WAITING_MAX
    assert line.circuit.queued <= 2 * post.config.thin_window_bytes


def test_idle_circuits_end_and_late_messages_are_still_heard() -> None:
    """Rules: T-16"""
    post = Post("ab")
    post.send("a", "b", 1)
    post.settle()
    for _ in range(3):
        post.wait(IDLE_US)
    post.collect()  # END is on its way; b speaks before it comes
    assert any(isinstance(frame, End) for _, frame in post.frames)
    post.send("b", "a", 2)
    post.settle()
    for node in post.nodes.values():
        node.ctx.now_us += 2_000_000
        node.ctx.run_timers()
    post.settle()
    assert post.numbers("a") == [2]


def test_an_end_without_credit_does_not_trap_the_sender() -> None:
    """Rules: T-16"""
    post = Post("ab")
    post.nodes["b"].circuits.give_back = lambda *_: None
    for number in range(10):
        post.send("a", "b", number)
    post.settle()
    circuit = post.couriers["a"]._lines[post.nodes["b"].id].circuit
    post.nodes["a"].circuits.on_end(0, End(circuit.first.label))
    post.send("a", "b", 99)  # waits for the next circuit
    assert not circuit.sendable


def test_a_message_that_does_not_verify_resets_the_circuit() -> None:
    """Rules: C-01, C-03"""
    post = Post("ab")
    a: Node = post.nodes["a"]
    raw = encode_message(Kind.CANCEL, (ID,), network="another", signer=a.key)
    post.couriers["a"].resend(post.nodes["b"].id, raw)
    post.settle()
    assert post.got["b"] == []
    assert post.nodes["b"].ctx.counters == {"messages_refused_signature": 1}
    assert len(post.nodes["b"].circuits) == 0
