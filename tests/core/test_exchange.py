"""Objects between two custodians, with the simulator's disk at either end."""

from __future__ import annotations

import msgpack
import numpy as np
import pytest

from mfd.core.circuit import Circuit, Refusal
from mfd.core.config import Config
from mfd.core.effects import Discard, Fetch, FetchTable, Keep, Send
from mfd.core.events import Fetched, KeepFailed, Kept
from mfd.core.exchange import Exchange
from mfd.core.frames import Class, Opened, ResetCode, Via
from mfd.core.intake import CHUNK_HEAD, OBJECT_HEAD, Bases
from mfd.packet.chunks import Encoding
from mfd.packet.limits import CHUNK_BYTES
from mfd.packet.objects import LayerObject, pack_layer, unpack_layer
from mfd.sim.disk import Disk
from tests.core.circuit_world import Ear, Line

CLAIM = (b"r" * 32, b"n" * 16)


def layer(seed: int, floats: int) -> LayerObject:
    rng = np.random.default_rng(seed)
    return pack_layer({"w": rng.standard_normal(floats, dtype=np.float32)})


SMALL = layer(1, 500)
LARGE = layer(2, 3 * CHUNK_BYTES // 4 + 1_000)  # four chunks, the last one short


class Pair(Line):
    """a ships to c over the relay b."""

    def __init__(self) -> None:
        super().__init__(
            "abc", Config(bulk_window_bytes=256 << 10, bulk_window_max_bytes=256 << 10)
        )
        self.disks = {name: Disk() for name in "abc"}
        self.exchanges = {}
        for name, node in self.nodes.items():
            exchange = Exchange(node.ctx, lambda n=node: n.circuits, self.via)
            self.exchanges[name] = exchange
            node.circuits._accept = exchange.accept
        self.keeps: list[tuple[bytes, int]] = []
        self.discarded: list[bytes] = []
        self.held_bytes = 0
        self.stop_keeping = False
        self.bases: dict[bytes, bytes] = {}  # what a builds upon

    def via(self, peer: bytes, cls: Class) -> Via:
        name = next(n for n, node in self.nodes.items() if node.id == peer)
        return Via(name, peer, 0, 100)

    def collect(self) -> None:
        """Answer the disks' effects at once, then send the rest."""
        for name, node in self.nodes.items():
            sends = []
            while effects := node.ctx.take():
                sends += [effect for effect in effects if isinstance(effect, Send)]
                for effect in effects:
                    self.answer(name, effect)
            for effect in sends:
                node.ctx.emit(effect)
        intake = next(iter(self.exchanges["c"]._intakes.values()), None)
        if intake is not None:
            self.held_bytes = max(self.held_bytes, intake.filled + len(intake.head))
        super().collect()

    def answer(self, name: str, effect: object) -> None:
        node, disk = self.nodes[name], self.disks[name]
        match effect:
            case Fetch(op=op, digest=digest, chunk=chunk, base=base):
                node.ctx.answer(Fetched(op, *disk.chunk(digest, chunk, base)))
            case FetchTable(op=op, digest=digest):
                node.ctx.answer(Fetched(op, 0, disk.table(digest)))
            case Keep(op=op) if not self.stop_keeping:
                self.keeps.append((effect.digest, effect.chunk))
                fault = disk.keep(effect)
                node.ctx.answer(Kept(op) if fault is None else KeepFailed(op, fault))
            case Discard(digest=digest):
                self.discarded.append(digest)
                disk.discard(digest)

    def ship(self, *objects: LayerObject, named: Bases | None = None) -> dict[str, list[object]]:
        out: dict[str, list[object]] = {"sent": [], "came": [], "lost": [], "failed": []}
        wanted = tuple((o.digest, o.raw_bytes) for o in objects)
        for o in objects:
            self.disks["a"].add(o)
        self.exchanges["c"].expect(
            CLAIM, wanted, out["came"].append, out["lost"].append, bases=named
        )
        self.exchanges["a"].ship(
            self.nodes["c"].id,
            CLAIM,
            wanted,
            out["sent"].append,
            out["failed"].append,
            bases=self.bases,
        )
        return out

    def hostile(self, *wanted: LayerObject) -> tuple[Circuit, list[object]]:
        """A circuit into an intake of c, for bytes of our own making."""
        lost: list[object] = []
        names = tuple((o.digest, o.raw_bytes) for o in wanted)
        self.exchanges["c"].expect(CLAIM, names, lambda _: lost.append("came"), lost.append)
        handshake = msgpack.packb(list(CLAIM))
        target = self.nodes["c"].id
        circuit = self.nodes["a"].circuits.connect(
            target, Class.BULK, Via("c", target, 0, 100), handshake, Ear()
        )
        self.settle()
        return circuit, lost


def table(o: LayerObject) -> bytes:
    disk = Disk()
    disk.add(o)
    flat = disk.table(o.digest)
    return OBJECT_HEAD.pack(1, o.digest, o.raw_bytes, len(flat) // 32) + flat


def chunk(o: LayerObject, number: int) -> bytes:
    raw = o.tobytes()[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES]
    return CHUNK_HEAD.pack(2, o.digest, number, Encoding.RAW, len(raw)) + raw


def test_objects_arrive_and_are_counted() -> None:
    """Rules: T-12, T-13"""
    pair = Pair()
    out = pair.ship(SMALL, LARGE)
    pair.settle()
    assert pair.keeps == [(SMALL.digest, 0), *((LARGE.digest, i) for i in range(4))]
    assert out["sent"] == out["came"]
    assert len(out["sent"]) == 1
    assert out["lost"] == out["failed"] == []
    growing = pair.disks["c"]._growing
    assert bytes(growing[SMALL.digest]) == SMALL.tobytes()
    assert bytes(growing[LARGE.digest]) == LARGE.tobytes()


def test_nothing_lacking_needs_no_circuit() -> None:
    """Rules: T-12"""
    pair = Pair()
    out = pair.ship()
    pair.settle()
    assert (out["sent"], out["came"]) == ([0], [0])
    assert pair.frames == []


@pytest.mark.parametrize("code", [ResetCode.LINK_DOWN, ResetCode.STALLED])
def test_a_broken_circuit_is_resumed_where_it_stood(code: ResetCode) -> None:
    """Rules: T-15"""
    whole = Pair()
    full = whole.ship(SMALL, LARGE)
    whole.settle()
    pair = Pair()
    out = pair.ship(SMALL, LARGE)
    while len(pair.keeps) < 3:  # SMALL and two chunks of LARGE
        assert pair.step()
    circuit = next(iter(pair.nodes["b"].circuits._links[0].values()))
    pair.nodes["b"].circuits.drop(circuit, code, origin=None)
    pair.settle()
    assert not out["sent"]
    pair.wait(1_300_000)
    pair.settle()
    assert pair.keeps == whole.keeps  # no chunk twice, none missing
    assert bytes(pair.disks["c"]._growing[LARGE.digest]) == LARGE.tobytes()
    again = out["sent"][0] - full["sent"][0]
    assert again < 1.5 * CHUNK_BYTES  # what was on its way, and the chunk table


def test_an_answer_of_the_disk_for_a_broken_circuit_is_not_sent() -> None:
    """Rules: T-15"""
    pair = Pair()
    out = pair.ship(LARGE)
    node = pair.nodes["a"]
    late: list[object] = []
    answer = pair.answer
    pair.answer = lambda n, e: late.append(e) if isinstance(e, Fetch) and not late else answer(n, e)
    pair.settle()  # the first chunk is never read
    circuit = next(iter(pair.nodes["b"].circuits._links[0].values()))
    pair.nodes["b"].circuits.drop(circuit, ResetCode.LINK_DOWN, origin=None)
    pair.settle()
    pair.wait(1_300_000)
    pair.step()
    node.ctx.answer(Fetched(late[0].op, Encoding.RAW, b"late"))
    pair.settle()
    assert out["failed"] == out["lost"] == []
    assert bytes(pair.disks["c"]._growing[LARGE.digest]) == LARGE.tobytes()


def test_after_three_retries_the_sender_gives_up() -> None:
    """Rules: T-15"""
    pair = Pair()
    out = pair.ship(SMALL)
    for _ in range(4):
        pair.collect()
        pair.cut(0)
        pair.queues.clear()
        pair.wait(4_300_000)
        pair.nodes["a"].circuits.link_up(0, pair.nodes["b"].id, outbound=True)
        pair.nodes["b"].circuits.link_up(0, pair.nodes["a"].id, outbound=False)
    assert len(out["failed"]) == 1


def test_nothing_comes_for_too_long() -> None:
    """Rules: T-15"""
    pair = Pair()
    lost: list[object] = []
    wanted = ((SMALL.digest, SMALL.raw_bytes),)
    pair.exchanges["c"].expect(CLAIM, wanted, lost.append, lost.append)
    pair.wait(2 * pair.config.stalled_us)
    pair.collect()
    assert lost == ["nothing came"]
    assert pair.discarded == [SMALL.digest]


WRONG = {
    "another object": lambda: table(SMALL),
    "a wrong size": lambda: OBJECT_HEAD.pack(1, LARGE.digest, LARGE.raw_bytes + 1, 4),
    "a wrong count": lambda: OBJECT_HEAD.pack(1, LARGE.digest, LARGE.raw_bytes, 5),
    "a wrong table": lambda: table(LARGE)[:-1] + b"\0",
    "another kind": lambda: b"\x07" + table(LARGE)[1:],
    "a chunk out of order": lambda: table(LARGE) + chunk(LARGE, 1),
    "a chunk too large": lambda: table(LARGE) + CHUNK_HEAD.pack(2, LARGE.digest, 0, 0, 1 << 30),
    "wrong bytes": lambda: table(LARGE) + chunk(LARGE, 0)[:-1] + b"\0",
    "an unknown encoding": lambda: (
        table(LARGE) + CHUNK_HEAD.pack(2, LARGE.digest, 0, 200, 5) + b"xxxxx"
    ),
}


@pytest.mark.parametrize("stream", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_stream_is_refused_at_once(stream) -> None:
    """Rules: T-13, T-14"""
    pair = Pair()
    circuit, lost = pair.hostile(LARGE)
    circuit.send(stream())
    pair.settle()
    assert len(lost) == 1
    assert lost != ["came"]
    assert pair.discarded == [LARGE.digest]
    assert circuit.gone


def test_bytes_after_the_last_object() -> None:
    """Rules: T-14"""
    pair = Pair()
    circuit, lost = pair.hostile(SMALL)
    circuit.send(table(SMALL) + chunk(SMALL, 0), b"more")
    pair.settle()
    assert lost == ["came"]  # it was complete already; what follows ends the circuit
    assert circuit.gone


@pytest.mark.parametrize("handshake", [b"", b"\xc1", msgpack.packb([1]), msgpack.packb([b"r", []])])
def test_a_circuit_that_nobody_asked_for(handshake: bytes) -> None:
    """Rules: T-12"""
    pair = Pair()
    with pytest.raises(Refusal):
        pair.exchanges["c"].accept(None, handshake)


def test_memory_is_bounded_while_the_disk_stands_still() -> None:
    """Rules: T-14"""
    pair = Pair()
    pair.stop_keeping = True
    many = [layer(seed, CHUNK_BYTES // 4 - 64) for seed in range(6)]
    pair.ship(*many)
    pair.settle()
    intake = pair.exchanges["c"]._intakes[CLAIM]
    window = pair.config.bulk_window_bytes
    in_flight = intake.received_bytes
    assert in_flight <= 3 * (CHUNK_BYTES + window)  # two chunks at the disk, one coming
    assert pair.held_bytes <= CHUNK_BYTES + 2 * window


def test_what_another_intake_writes_too_is_not_discarded() -> None:
    """Rules: T-14"""
    pair = Pair()
    exchange = pair.exchanges["c"]
    wanted = ((SMALL.digest, SMALL.raw_bytes), (LARGE.digest, LARGE.raw_bytes))
    exchange.expect(CLAIM, wanted, print, print)
    exchange.expect((b"2" * 32, b"n" * 16), wanted[:1], print, print)
    exchange.cancel(CLAIM)
    pair.collect()
    assert pair.discarded == [LARGE.digest]


NEWER = pack_layer(
    {"w": unpack_layer(LARGE.tobytes())["w"].array() * np.float32(1.0001)}
)  # one step of training later
BASES = {NEWER.digest: (SMALL.digest, LARGE.digest)}


def based(*holders: str) -> tuple[Pair, dict[str, list[object]]]:
    """A newer version of LARGE goes from a to c; those named hold the older one."""
    pair = Pair()
    for name in holders:
        pair.disks[name].objects[LARGE.digest] = LARGE.tobytes()
    pair.bases = {NEWER.digest: LARGE.digest}
    return pair, pair.ship(NEWER, named=BASES)


def test_a_difference_travels_where_both_ends_hold_the_base() -> None:
    """Rules: T-28"""
    whole = Pair()
    plain = whole.ship(NEWER)
    whole.settle()
    pair, out = based("a", "c")
    pair.settle()
    assert bytes(pair.disks["c"]._growing[NEWER.digest]) == NEWER.tobytes()
    assert out["sent"] == out["came"]
    assert out["sent"][0] < 0.6 * plain["sent"][0]


def test_a_sender_whose_base_has_gone_sends_chunks_as_without_one() -> None:
    """Rules: T-28"""
    pair, out = based("c")
    pair.settle()
    assert bytes(pair.disks["c"]._growing[NEWER.digest]) == NEWER.tobytes()
    assert out["sent"] == out["came"]


def test_a_base_that_nobody_named_is_refused() -> None:
    """Rules: T-28"""
    pair = Pair()
    circuit, lost = pair.hostile(LARGE)
    head = table(LARGE)
    circuit.send(b"\3" + head[1 : OBJECT_HEAD.size] + SMALL.digest + head[OBJECT_HEAD.size :])
    pair.settle()
    assert len(lost) == 1
    assert "a base that was not named" in lost[0]


def test_a_receiver_whose_base_has_gone_takes_the_rest_without_it() -> None:
    """Rules: T-29"""
    pair, out = based("a", "c")
    while len(pair.keeps) < 2:
        assert pair.step()
    del pair.disks["c"].objects[LARGE.digest]
    pair.settle()
    assert not out["sent"]
    pair.wait(1_300_000)
    pair.settle()
    assert bytes(pair.disks["c"]._growing[NEWER.digest]) == NEWER.tobytes()
    assert len(out["sent"]) == len(out["came"]) == 1
    assert out["failed"] == out["lost"] == []
    heads = [value for _, value in pair.frames if isinstance(value, Opened)]
    assert [msgpack.unpackb(h.handshake) for h in heads][-1] == [0, 2, True]
