"""Sealed circuits over relays: who may read, who may be whom, and what a tampering relay gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mfd.core.circuit import Channel, Circuit, Refusal
from mfd.core.config import Config
from mfd.core.frames import Class, Credit, Data, Open, Opened, Reset, ResetCode, Via, encode_frame
from mfd.core.recordbook import RecordBook
from mfd.core.records import OPEN_NETWORK, seal_peer_record
from mfd.core.seals import PLAIN, RECORD_BYTES_MAX, SEALED, Sealed, Sealer, Seals
from mfd.core.whereabouts import Whereabouts
from mfd.sim.keys import SimKey, sim_verify
from mfd.sim.sealing import SimSealing
from tests.core.circuit_world import Ear, Line

SECRET = b"the weights of the model " * 40


class Line2(Line):
    """A line whose nodes seal; what an end is greeted with is remembered."""

    def __init__(
        self, names: str = "abc", config: Config | None = None, sealer: Sealer | None = None
    ) -> None:
        super().__init__(
            names, config or Config(bulk_window_bytes=256 << 10, bulk_window_max_bytes=256 << 10)
        )
        self.hellos: list[tuple[bytes, bytes]] = []
        self.seals = {}
        for name, node in self.nodes.items():
            accept = self.accept(node)
            seals = Seals(node.ctx, lambda n=node: n.circuits, sealer or SimSealing(), accept)
            self.seals[name] = seals
            node.circuits._accept = seals.accept

    def accept(self, node) -> Callable[[Channel, bytes], Ear]:
        def greeted(circuit: Channel, hello: bytes) -> Ear:
            if node.refuse is not None:
                raise Refusal(node.refuse)
            self.hellos.append((getattr(circuit, "peer", b""), hello))
            circuit.answer = b"answer to " + hello
            node.ears.append(Ear(node.consume))
            return node.ears[-1]

        return greeted

    def dial(self, cls: Class = Class.BULK) -> tuple[Channel | None, Ear]:
        ear, target = Ear(), self.nodes[self.order[-1]].id
        via = Via(self.order[-1], target, 0, 100)
        made = self.seals[self.order[0]].connect(target, cls, via, b"hello", ear)
        return made, ear

    def seen(self) -> bytes:
        """Everything that went over the links."""
        return b"".join(
            bytes(f.payload) if isinstance(f, Data) else encode_frame(f) for _, f in self.frames
        )


@pytest.fixture(params=["stand-in", "real"])
def sealer(request: pytest.FixtureRequest) -> Sealer:
    if request.param == "stand-in":
        return SimSealing()
    from mfd.net.sealing import Sealing

    return Sealing()


@pytest.mark.parametrize("cls", list(Class))
def test_both_ends_know_each_other_and_hear_all(cls: Class, sealer: Sealer) -> None:
    """Rules: T-23, T-24"""
    line = Line2(sealer=sealer)
    made, ear = line.dial(cls)
    line.settle()
    assert isinstance(made, Sealed)
    assert line.hellos == [(line.nodes["a"].id, b"hello")]
    assert made.answer == (b"answer to hello" if cls is Class.BULK else b"")
    far = line.nodes["c"].ears[-1]
    made.send(b"head", SECRET, b"tail")
    far.circuit.send(b"back")
    made.end()
    line.settle()
    assert bytes(far.got) == b"head" + SECRET + b"tail"
    assert bytes(ear.got) == b"back"
    assert ear.said == far.said == ["opened", None]
    assert not any(len(node.circuits) for node in line.nodes.values())


def test_relays_read_nothing() -> None:
    """The stand-in hides nothing, so this takes the real one. Rules: T-23"""
    from mfd.net.sealing import Sealing

    line = Line2(sealer=Sealing())
    made, _ = line.dial()
    line.settle()
    made.send(SECRET)
    line.settle()
    seen = line.seen()
    assert SECRET[:25] not in seen
    assert b"hello" not in seen
    assert line.nodes["a"].id not in seen


@pytest.mark.parametrize("window", [100, 5_000, 256 << 10])
@pytest.mark.parametrize("size", [0, 1, RECORD_BYTES_MAX, RECORD_BYTES_MAX + 1, 300_000])
def test_any_size_through_any_window_and_no_credit_is_lost(window: int, size: int) -> None:
    """Rules: T-05, T-26"""
    config = Config(
        bulk_window_bytes=window, bulk_window_max_bytes=window, thin_window_bytes=window
    )
    line = Line2(config=config)
    made, ear = line.dial()
    line.settle()
    far = line.nodes["c"].ears[-1]
    data = bytes(i * 7 % 251 for i in range(size))
    made.send(data)
    line.settle()
    assert bytes(far.got) == data
    leg = far.circuit.circuit.first
    assert leg.room + leg.owed == leg.window  # all that came was given back, once
    made.end()
    line.settle()
    assert ear.said[-1] is None


def test_what_is_not_consumed_is_not_given_back() -> None:
    """Rules: T-05, T-26"""
    line = Line2()
    line.nodes["c"].consume = False
    made, _ = line.dial()
    line.settle()
    far = line.nodes["c"].ears[-1]
    made.send(bytes(10 << 20))
    line.settle()
    window = line.config.bulk_window_bytes
    held = len(far.got)
    assert held <= window
    far.circuit.consumed(held)
    line.settle()
    assert held < len(far.got) <= held + window


def test_without_encryption_on_the_link_a_neighbour_is_sealed_to_as_well() -> None:
    """Rules: T-23"""
    line = Line2("ab")
    made, _ = line.dial()
    assert isinstance(made, Sealed)


def test_over_an_encrypted_link_a_neighbour_itself_needs_no_seal() -> None:
    """Rules: T-23"""
    line = Line2("ab")
    for name in "ab":
        line.nodes[name].circuits._private.add(0)
    made, ear = line.dial()
    line.settle()
    assert isinstance(made, Circuit)
    assert ear.said == ["opened"]
    assert line.hellos == [(b"", b"hello")]


@pytest.mark.parametrize("private", [True, False])
def test_a_relay_cannot_make_a_circuit_plain(private: bool) -> None:
    """Rules: T-23"""
    line = Line2("abc")
    if private:
        for name in "abc":
            line.nodes[name].circuits._private.update((0, 1))
    ear, target = Ear(), line.nodes["c"].id
    via = Via("c", target, 0, 100)
    line.nodes["a"].circuits.connect(target, Class.BULK, via, PLAIN + b"hello", ear)
    line.settle()
    assert ear.said == [ResetCode.REFUSED]
    assert line.hellos == []


@pytest.mark.parametrize("handshake", [b"\2x", SEALED, SEALED + bytes(31), SEALED + bytes(32)])
def test_a_handshake_that_is_none_is_refused(handshake: bytes, sealer: Sealer) -> None:
    """Rules: T-24"""
    line = Line2("ab", sealer=sealer)
    ear = Ear()
    line.nodes["a"].circuits.connect(line.nodes["b"].id, Class.BULK, None, handshake, ear)
    line.settle()
    assert ear.said == [ResetCode.REFUSED]


def tampered(line: Line2, kind: type, change: Callable[[object], object]) -> list[object]:
    """Let the relay change the first frame of a kind; return what the dialler's end is told."""
    made, ear = line.dial()
    done: list[object] = []
    usual = line.receive

    def receive(node, link: int, frame: bytes) -> None:
        from mfd.core.frames import decode_frame, encode_data

        value = decode_frame(frame)
        if node.name in line.order[1:-1] and isinstance(value, kind) and not done:
            done.append(value)
            value = change(value)
            frame = (
                encode_data(value.circuit) + bytes(value.payload)
                if isinstance(value, Data)
                else encode_frame(value)
            )
        usual(node, link, frame)

    line.receive = receive
    line.settle()
    if not made.gone and made.sendable:
        made.send(SECRET)
        line.settle()
    assert done
    return ear.said


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("at", [0, 31, 32, 95])
def test_an_answer_that_was_changed_is_refused(at: int) -> None:
    """Rules: T-24"""
    said = tampered(
        Line2(), Opened, lambda f: Opened(f.circuit, flip(f.handshake, at), f.hops, 0, 0)
    )
    assert said == [ResetCode.REFUSED]


def test_another_ephemeral_key_under_way_is_refused() -> None:
    """Rules: T-24"""
    line = Line2()

    def change(f: Open) -> Open:
        other = flip(f.handshake, 5)
        return Open(f.circuit, f.target, f.via, f.route, f.nonce, f.hops, f.cls, other)

    assert tampered(line, Open, change) == [ResetCode.REFUSED]
    assert line.hellos == []


@pytest.mark.parametrize("at", [0, 3, 4, 40, 110, -1])
def test_a_record_that_was_changed_is_never_used(at: int) -> None:
    """Rules: T-24, T-25"""
    line = Line2()
    said = tampered(line, Data, lambda f: Data(f.circuit, memoryview(flip(bytes(f.payload), at))))
    line.wait(line.config.opening_us)
    line.settle()
    assert said[-1] in (ResetCode.UNKNOWN, ResetCode.STALLED)
    assert line.hellos == []
    assert all(not ear.got for ear in line.nodes["c"].ears)


def test_a_record_that_is_left_out_or_repeated_is_never_used() -> None:
    """Rules: T-25"""
    for repeated in (True, False):
        line = Line2()
        made, ear = line.dial()
        line.settle()
        far = line.nodes["c"].ears[-1]
        sent: list[bytes] = []
        usual = made.circuit.send
        made.circuit.send = lambda *parts, sent=sent: sent.append(b"".join(parts))
        for word in (b"one", b"two", b"three"):
            made.send(word)
        usual(*([sent[0], sent[0]] if repeated else [sent[0], sent[2]]))
        line.settle()
        assert bytes(far.got) == b"one"
        assert far.said[-1] is ResetCode.UNKNOWN
        assert ear.said[-1] is ResetCode.UNKNOWN


def test_nobody_passes_for_another() -> None:
    """An impostor signs with its own key, or as itself under another's name. Rules: T-24"""
    line = Line2()
    a = line.nodes["a"]
    impostor = SimKey(b"impostor")
    a.ctx.signer = impostor  # the id says a, the signature is another's
    _, ear = line.dial()
    line.settle()
    assert ear.said[-1] is ResetCode.REFUSED
    assert line.hellos == []

    line = Line2()
    line.nodes["c"].ctx.signer = impostor
    _, ear = line.dial()
    line.settle()
    assert ear.said == [ResetCode.REFUSED]
    assert line.hellos == []


def test_who_does_not_say_who_it_is_has_no_circuit() -> None:
    """Rules: T-26"""
    line = Line2("ab")
    ear = Ear()
    key = SimSealing().fresh(b"x" * 32).public
    circuit = line.nodes["a"].circuits.connect(
        line.nodes["b"].id, Class.THIN, None, SEALED + key, ear
    )
    line.settle()
    assert ear.said == ["opened"]
    line.wait(line.config.opening_us)
    line.settle()
    assert ear.said[-1] is ResetCode.STALLED
    assert circuit.gone
    assert len(line.nodes["b"].circuits) == 0


def test_a_refusal_by_the_end_reaches_the_dialler() -> None:
    """Rules: T-08, T-24"""
    line = Line2()
    line.nodes["c"].refuse = ResetCode.REFUSED
    _, ear = line.dial()
    line.settle()
    assert ear.said == [ResetCode.REFUSED]
    assert [f.code for n, f in line.frames if n == "c" and isinstance(f, Reset)] == [
        ResetCode.REFUSED
    ]


def test_keys_are_fresh_and_cannot_be_found_from_what_is_left() -> None:
    """Rules: T-25"""
    line = Line2()
    for _ in range(3):
        line.dial()
        line.settle()
    opens = [f for name, f in line.frames if name == "a" and isinstance(f, Open)]
    assert len({f.handshake for f in opens}) == 3
    dice = line.nodes["a"].ctx.dice
    before = dice._seed
    drawn = dice.bytes(32)
    assert dice._seed != before  # the state that gave it is gone
    assert drawn != dice.bytes(32)


def test_credit_frames_stay_small_in_number() -> None:
    """Early credit does not mean a CREDIT for every frame. Rules: T-05, T-26"""
    line = Line2()
    made, _ = line.dial()
    line.settle()
    line.frames.clear()
    made.send(bytes(4 << 20))
    line.settle()
    count = sum(isinstance(f, Credit) for name, f in line.frames if name == "c")
    assert count <= 4 * (4 << 20) // (256 << 10) + 4


@pytest.mark.parametrize(("cls", "most"), [(Class.THIN, 4_092), (Class.BULK, 65_532)])
def test_a_record_that_would_take_more_memory_is_refused_by_its_size(cls: Class, most: int) -> None:
    """Rules: T-25, T-26"""
    for size, code in ((most + 1, ResetCode.UNKNOWN), (most, None), (15, ResetCode.UNKNOWN)):
        line = Line2("ab")
        made, ear = line.dial(cls)
        line.settle()
        made.circuit.send(size.to_bytes(4, "little"))
        line.settle()
        assert ear.said[-1] == (code or "opened")
    far = line.nodes["b"].ears[-1]
    assert far.got == b""


def test_records_of_thin_circuits_are_small() -> None:
    """Rules: T-26"""
    line = Line2("ab")
    made, _ = line.dial(Class.THIN)
    line.settle()
    line.frames.clear()
    made.send(bytes(20_000))
    line.settle()
    sizes = [len(f.payload) for _, f in line.frames if isinstance(f, Data)]
    assert max(sizes) == 4_096
    assert len(line.nodes["b"].ears[-1].got) == 20_000


def test_who_accepts_tells_where_it_can_be_dialled() -> None:
    """Rules: T-31"""
    config = Config(bulk_window_bytes=4_096, bulk_window_max_bytes=4_096, open_network=True)
    line = Line2(config=config)
    books = {}
    for name, node in line.nodes.items():
        books[name] = RecordBook(config, sim_verify)
        line.seals[name].whereabouts = Whereabouts(node.ctx, books[name])
    target = line.nodes["c"]

    def record(*addresses: str, key: SimKey = target.key) -> bytes:
        made = seal_peer_record(
            "mfd", key, seq=1, addresses=addresses, caps=OPEN_NETWORK, valid_us=3_600_000_000
        )
        return made.sealed

    line.dial(Class.THIN)
    line.settle()
    assert books["a"].get(target.id, 0) is None, "it does not know its own addresses"
    books["c"].learn((record("10.0.0.3:7000"), 0), 0)
    made, ear = line.dial(Class.THIN)
    line.settle()
    assert ear.said == ["opened"]
    known = books["a"].get(target.id, 0)
    assert known is not None
    assert known.record.addresses == ("10.0.0.3:7000",)
    assert books["b"].get(target.id, 0) is None, "a relay takes nothing from it"
    # what somebody hangs on behind the signature is looked at, not believed
    books["a"] = line.seals["a"].whereabouts._book = RecordBook(config, sim_verify)
    for tail in (b"x", bytes(300), bytes(4) + record("6.6.6.6:6", key=SimKey(b"mallory"))):
        line.seals["c"].whereabouts.tail = lambda most, tail=tail: tail
        made, ear = line.dial(Class.THIN)
        line.settle()
        assert ear.said == ["opened"]
    assert not books["a"].view()
    assert made is not None
    long = [f"{'a' * 60}{n}.example:7000" for n in range(8)]
    book = RecordBook(config, sim_verify)
    book.learn((record(*long), 0), 0)
    assert Whereabouts(target.ctx, book).tail(416) == b"", "one too long is left out"
