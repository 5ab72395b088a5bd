from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from mfd.net.frames import (
    BUFFER_BYTES,
    FRAME_BYTES_MAX,
    BufferPool,
    FrameConnection,
    is_free,
)
from mfd.net.outlet import DirectOutlet


class FakeTransport:
    """What asyncio would do, by hand."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.parts: list[Any] = []
        self.reading = True
        self.closed = ""

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        self.parts.append(data)

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_extra_info(self, name: str) -> Any:
        return ("10.0.0.1", 99) if name == "peername" else None

    def resume_reading(self) -> None:
        self.reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def is_closing(self) -> bool:
        return bool(self.closed)

    def close(self) -> None:
        self.closed = self.closed or "close"

    def abort(self) -> None:
        self.closed = "abort"


class Below(asyncio.Protocol):
    """aiohttp's own protocol: false as a truth value, and waiting for the end."""

    lost = 0

    def __len__(self) -> int:
        return 0

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost += 1


def connection(pool: BufferPool | None = None) -> tuple[FrameConnection, FakeTransport]:
    transport = FakeTransport()
    made = FrameConnection(transport, None, pool or BufferPool())  # type: ignore[arg-type]
    return made, transport


def frame(body: bytes) -> bytes:
    return len(body).to_bytes(4, "little") + body


def feed(made: FrameConnection, data: bytes) -> None:
    """Receive as asyncio does, as much at once as there is room for."""
    while data:
        room = made.get_buffer(-1)
        count = min(len(room), len(data))
        room[:count] = data[:count]
        del room
        made.buffer_updated(count)
        data = data[count:]


def random_frames(seed: int) -> Iterator[bytes]:
    dice = random.Random(seed)
    for _ in range(60):
        yield dice.randbytes(dice.choice([1, 3, 100, 5_000, 60_000, FRAME_BYTES_MAX]))


async def test_frames_arrive_whole_and_in_order_however_the_bytes_are_cut() -> None:
    """Rules: L-03, L-23."""
    for seed, step in ((1, 7_919), (2, 65_536), (3, BUFFER_BYTES), (4, 1_000_003)):
        made, _ = connection()
        got: list[bytes] = []
        made.deliver(lambda view, got=got: got.append(bytes(view)))
        sent = list(random_frames(seed))
        stream = b"".join(map(frame, sent))
        for at in range(0, len(stream), step):
            feed(made, stream[at : at + step])
        assert got == sent
        assert made.bytes_in == len(stream)


async def test_frames_arrive_byte_by_byte() -> None:
    """Rules: L-03."""
    made, _ = connection()
    got: list[bytes] = []
    made.deliver(lambda view: got.append(bytes(view)))
    for byte in frame(b"abc") + frame(b"d"):
        feed(made, bytes([byte]))
    assert got == [b"abc", b"d"]


@pytest.mark.parametrize("size", [0, FRAME_BYTES_MAX + 1, 1 << 31, (1 << 32) - 1])
async def test_a_forbidden_length_ends_the_connection_before_its_body_comes(size: int) -> None:
    """Rules: L-03, L-04."""
    made, transport = connection()
    got: list[bytes] = []
    made.deliver(lambda view: got.append(bytes(view)))
    feed(made, frame(b"before") + size.to_bytes(4, "little"))
    assert got == [b"before"]
    assert transport.closed == "abort"
    made.connection_lost(None)
    assert str(size) in made.lost.result()


async def test_before_the_link_is_up_the_limit_is_smaller() -> None:
    """Rules: L-04."""
    made, transport = connection()
    made.frame_bytes_max = 4096
    waiting = asyncio.ensure_future(made.receive())
    await asyncio.sleep(0)
    feed(made, (4097).to_bytes(4, "little"))
    assert transport.closed == "abort"
    made.connection_lost(None)
    with pytest.raises(ConnectionError, match="4097"):
        await waiting


async def test_a_buffer_is_not_used_again_while_a_view_of_it_lives() -> None:
    """Rules: L-22."""
    pool = BufferPool()
    made, _ = connection(pool)
    kept: list[memoryview] = []
    made.deliver(kept.append)
    sent = [bytes([number]) * 50_000 for number in range(64)]
    for body in sent:
        feed(made, frame(body))
    assert [bytes(view) for view in kept] == sent
    made.connection_lost(None)
    for _ in range(64):
        assert is_free(pool.take()), "a buffer with readers was handed out"
    assert [bytes(view) for view in kept] == sent


async def test_buffers_are_used_again_once_nobody_looks() -> None:
    """Rules: L-22."""
    pool = BufferPool()
    made, _ = connection(pool)
    addresses = set()
    made.deliver(lambda view: addresses.add(id(view.obj)))
    for number in range(200):
        feed(made, frame(bytes([number]) * 50_000))
    assert len(addresses) <= 2


async def test_a_queued_write_keeps_its_buffer() -> None:
    """A relay writes what it received, and the neighbour is slow. Rules: L-22."""
    pool = BufferPool()
    source, _ = connection(pool)
    target, out = connection(pool)
    target.pause_writing()
    source.deliver(lambda view: target.send([b"head", view]))
    sent = [bytes([number]) * 60_000 for number in range(16)]
    for body in sent:
        feed(source, frame(body))
    target.resume_writing()
    assert b"".join(out.written) == b"".join(frame(b"head" + body) for body in sent)


async def test_large_parts_are_written_without_a_copy() -> None:
    made, transport = connection()
    body = memoryview(bytes(50_000))
    made.send([b"head", body])
    assert any(part is body for part in transport.parts)
    assert b"".join(transport.written) == frame(b"head" + bytes(50_000))
    assert made.bytes_out == 50_008


async def test_a_neighbour_that_does_not_read_is_let_go() -> None:
    """Rules: L-21."""
    made, transport = connection()
    made.queue_bytes_max = 100_000
    made.pause_writing()
    for _ in range(2):
        made.send([bytes(49_000)])
    assert not transport.closed
    made.send([bytes(49_000)])
    assert transport.closed == "abort"
    made.connection_lost(None)
    assert "does not read" in made.lost.result()


async def test_what_was_sent_is_written_before_the_close() -> None:
    made, transport = connection()
    made.pause_writing()
    made.send([b"last"])
    made.close("enough")
    made.send([b"too late"])
    assert not transport.closed
    made.resume_writing()
    assert transport.written == [frame(b"last")]
    assert transport.closed == "close"
    made.connection_lost(None)
    assert made.lost.result() == "enough"


async def test_the_end_is_told_to_the_protocol_below_although_it_is_false() -> None:
    below = Below()
    made = FrameConnection(FakeTransport(), below, BufferPool())  # type: ignore[arg-type]
    assert not below
    made.connection_lost(None)
    assert below.lost == 1


async def test_reading_stops_while_nobody_takes_frames() -> None:
    made, transport = connection()
    first = asyncio.ensure_future(made.receive())
    await asyncio.sleep(0)
    feed(made, frame(b"one") + frame(b"two") + frame(b"three"))
    assert await first == b"one"
    assert not transport.reading
    assert await made.receive() == b"two"
    got: list[bytes] = []
    made.deliver(lambda view: got.append(bytes(view)))
    assert got == [b"three"]
    assert transport.reading


async def test_sockets_are_tuned_for_their_channel() -> None:
    """Rules: L-20."""
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right, socket.create_server(("127.0.0.1", 0)) as server:
        for bulk in (False, True):
            with socket.create_connection(server.getsockname()) as client:
                made, transport = connection()
                transport.get_extra_info = lambda name, sock=client: sock  # type: ignore[method-assign]
                made.tune(bulk=bulk)
                assert client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                lowat = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                assert (lowat == 32 << 10) is bulk


async def test_what_waits_on_control_leaves_in_the_order_of_service() -> None:
    """Rules: L-20."""
    made, transport = connection()
    made.pause_writing()
    bodies = {"data": b"\x12....payload", "end": b"\x14e", "open": b"\x10o", "update": b"\x04u"}
    urgent = {"credit": b"\x13c", "ping": b"\x01p", "reset": b"\x15r"}
    for body in (*bodies.values(), *urgent.values()):
        made.send([body])
    made.resume_writing()
    order = [*urgent.values(), bodies["open"], bodies["update"], bodies["data"], bodies["end"]]
    assert b"".join(transport.written) == b"".join(map(frame, order))


async def test_bulk_keeps_its_order_and_is_written_together() -> None:
    """Rules: L-20."""
    made, transport = connection()
    made.is_bulk = True
    sent = [bytes([number]) * 1_000 for number in (18, 1, 20, 19)]
    for body in sent:
        made.send([body])
    assert transport.written == []
    await asyncio.sleep(0)
    assert b"".join(transport.written) == b"".join(map(frame, sent))


async def test_a_view_that_must_wait_is_copied_if_it_is_small() -> None:
    """Rules: L-22, T-20."""
    made, transport = connection()
    made.pause_writing()
    buffer = bytearray(100_000)
    made.send([b"head", memoryview(buffer)[:500]])
    assert is_free(buffer)
    made.send([b"head", memoryview(buffer)[:50_000]])
    assert not is_free(buffer)
    made.resume_writing()
    assert len(b"".join(transport.written)) == 2 * 8 + 50_500


async def test_a_direct_outlet_writes_all_in_order_through_a_full_socket() -> None:
    loop = asyncio.get_running_loop()
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    wrote: list[int] = []
    drained = asyncio.Event()
    outlet = DirectOutlet(left.dup(), wrote=wrote.append, drained=drained.set, broke=pytest.fail)
    parts = [random.Random(n).randbytes(70_000 + n) for n in range(20)]
    outlet.write(parts)
    assert not outlet.ready
    got = bytearray()
    while len(got) < sum(map(len, parts)):
        got += await loop.sock_recv(right, 1 << 16)
    await drained.wait()
    assert bytes(got) == b"".join(parts)
    assert sum(wrote) == len(got)
    assert outlet.ready
    outlet.close()
    left.close()
    assert await loop.sock_recv(right, 1) == b""  # no descriptor of it is left open
    right.close()


async def test_a_direct_outlet_tells_of_a_broken_connection_once() -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    right.close()
    broke: list[str] = []
    outlet = DirectOutlet(left.dup(), wrote=lambda _: None, drained=pytest.fail, broke=broke.append)
    outlet.write([b"x"])
    assert broke == ["Broken pipe"]
    left.close()
