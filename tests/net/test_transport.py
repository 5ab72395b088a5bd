"""Links over real sockets on the loopback."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from mfd.core.effects import Close, Dial
from mfd.core.events import DialFailed, LinkDown, LinkUp
from mfd.net import handshake
from mfd.net.driver import Node
from mfd.net.frames import FRAME_BYTES_MAX
from mfd.net.handshake import Terms
from mfd.net.keys import verify
from mfd.net.tls import Tls
from mfd.net.transport import PATH, UPGRADE
from tests.net.worlds import FakeCore, core_of, keys, node, perform, reason_of, send

HEAD = f"GET {PATH} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {UPGRADE}\r\n\r\n"


async def link(one: Node, other: Node) -> tuple[LinkUp, LinkUp]:
    """Dial and wait until the link stands on both sides."""
    perform(one, Dial(other.join_line))
    for side in (one, other):
        await core_of(side).wait_for(lambda side=side: core_of(side).links)
    return (
        next(iter(core_of(one).links.values())),
        next(iter(core_of(other).links.values())),
    )


async def refusal(one: Node, address: str) -> str:
    perform(one, Dial(address))
    await core_of(one).wait_for(lambda: core_of(one).of(DialFailed))
    assert not core_of(one).links
    return reason_of(core_of(one))


async def upgraded(target: Node) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stranger's connection after the 101."""
    host, port = target.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HEAD.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    return reader, writer


async def gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """Read to the end."""
    try:
        rest = await reader.read()
    except ConnectionError:
        rest = b""
    writer.close()
    return rest


async def test_a_link_carries_frames_both_ways_on_both_channels(tmp_path: Path) -> None:
    """Rules: L-01, L-02, L-16, L-17, L-23."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, up2 = await link(one, other)
        assert (up.peer, up.outbound, up.address) == (other._core.id, True, other.join_line)
        assert (up2.peer, up2.outbound) == (one._core.id, False)
        sent = [bytes([n]) * size for n, size in enumerate((1, 70, 5_000, 65_541))]
        for channel in ("control", "bulk"):
            for body in sent:
                send(one, up.link, body, channel)
                send(other, up2.link, body, channel)
        for side in (one, other):
            core = core_of(side)
            await core.wait_for(lambda core=core: len(core.frames) == 8)
            assert sorted(core.frames) == sorted(sent + sent)
        out, back = one._transport.counters(), other._transport.counters()
        frames = sum(4 + len(body) for body in sent)
        for channel in ("control", "bulk"):
            assert out[f"{channel}_out"] == back[f"{channel}_in"] > frames
            assert out[f"{channel}_in"] == back[f"{channel}_out"]
        assert out["bulk_out"] == frames + 4 + len(handshake.bind_bulk(bytes(32)))


async def test_a_closed_link_goes_down_on_both_sides_after_what_was_sent(tmp_path: Path) -> None:
    """Rules: L-18."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, _ = await link(one, other)
        send(one, up.link, b"last words")
        perform(one, Close(up.link, "enough"))
        assert core_of(one).of(LinkDown) == [LinkDown(up.link, "enough")]
        core = core_of(other)
        await core.wait_for(lambda: core.of(LinkDown))
        assert core.frames == [b"last words"]
        assert not one._transport.links
        assert not other._transport.links


@pytest.mark.parametrize("channel", ["control", "bulk"])
async def test_one_lost_connection_ends_the_link(tmp_path: Path, channel: str) -> None:
    """Rules: L-18."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, _ = await link(one, other)
        getattr(one._transport.links[up.link], channel).abort("cut")
        for side in (one, other):
            core = core_of(side)
            await core.wait_for(lambda core=core: core.of(LinkDown))
        assert core_of(one).of(LinkDown)[0].reason == "cut"


@pytest.mark.parametrize(
    ("mine", "theirs", "sentence"),
    [
        (Terms("lab"), Terms("lab2"), "different networks"),
        (Terms(network_key=b"k" * 16), Terms(), "do not share the network key"),
        (Terms(), Terms(network_key=b"k" * 16), "do not share the network key"),
        (Terms(), Terms(allow=frozenset()), "refused by the other side: .*allow-list"),
        (Terms(allow=frozenset()), Terms(), "^the peer id is not on the allow-list"),
    ],
)
async def test_links_on_other_terms_are_refused_with_the_reason(
    tmp_path: Path, mine: Terms, theirs: Terms, sentence: str
) -> None:
    """Rules: L-08, L-10, L-13, L-15."""
    async with node(tmp_path, 1, terms=mine) as one, node(tmp_path, 2, terms=theirs) as other:
        reason = await refusal(one, other.address)
        assert re.search(sentence, reason)
        assert not core_of(other).of(LinkUp)


async def test_a_join_line_is_held_to(tmp_path: Path) -> None:
    """Rules: L-12, L-24."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        stranger = keys(3).public_key.hex()
        assert "another peer" in await refusal(one, f"mfd://{other.address}/{stranger}")
        core_of(one).events.clear()
        line = f"mfd://{other.address}?network=elsewhere"
        assert "different networks" in await refusal(one, line)


async def test_a_peer_that_dials_itself_is_told(tmp_path: Path) -> None:
    """Rules: L-11."""
    async with node(tmp_path, 1) as one:
        assert "this peer itself" in await refusal(one, one.address)


async def test_dials_that_lead_nowhere_say_so(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        assert await refusal(one, f"127.0.0.1:{port}")
        server.close()
        await server.wait_closed()
        core_of(one).events.clear()
        assert "nobody listens" in await refusal(one, f"127.0.0.1:{port}")
        core_of(one).events.clear()
        assert "write host:port" in await refusal(one, "nonsense")


async def test_an_oversize_frame_closes_the_link_and_is_never_read(tmp_path: Path) -> None:
    """Rules: L-04."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, _ = await link(one, other)
        control = one._transport.links[up.link].control
        control._transport.write((FRAME_BYTES_MAX + 1).to_bytes(4, "little"))
        core = core_of(other)
        await core.wait_for(lambda: core.of(LinkDown))
        assert str(FRAME_BYTES_MAX + 1) in core.of(LinkDown)[0].reason
        assert core.frames == []


async def test_garbage_disturbs_nobody(tmp_path: Path) -> None:
    """Rules: L-01, L-02, L-05, L-06."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, _ = await link(one, other)
        host, port = other.address.split(":")
        for data in (b"\0" * 300, b"GET / HTTP/9.9\r\n\r\n", HEAD.encode() + b"early"):
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(data)
            writer.write_eof()
            await gone(reader, writer)
        for data in (b"\5\0\0\0hello", b"\0\0\0\0", b"\xff" * 5_000, b"\x90\0\0\0\xc1"):
            reader, writer = await upgraded(other)
            writer.write(data)
            writer.write_eof()
            assert len(await gone(reader, writer)) <= 8
        url = f"http://{other.address}{PATH}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 426
            assert answer.headers["Upgrade"] == UPGRADE
        send(one, up.link, b"still here")
        core = core_of(other)
        await core.wait_for(lambda: core.frames)
        assert core.of(LinkDown) == []


async def test_a_token_works_once_and_only_if_known(tmp_path: Path) -> None:
    """Rules: L-15, L-16."""
    async with node(tmp_path, 1) as one:
        side = handshake.Dialler(keys(2), verify, Terms(), nonce=bytes(32))
        reader, writer = await upgraded(one)

        async def say(to: asyncio.StreamWriter, body: bytes) -> None:
            to.write(len(body).to_bytes(4, "little") + body)

        async def hear(reader: asyncio.StreamReader) -> bytes:
            size = int.from_bytes(await reader.readexactly(4), "little")
            return await reader.readexactly(size)

        await say(writer, side.hello())
        await say(writer, side.answer(await hear(reader)))
        token = side.finish(await hear(reader))
        assert not core_of(one).links, "the link is up before its second connection"
        answers = []
        streams = []
        for guess in (bytes(32), token, token):
            stream = await upgraded(one)
            streams.append(stream)
            await say(stream[1], handshake.bind_bulk(guess))
            answers.append(await hear(stream[0]))
        no = handshake.refusal(handshake.Refusal.TOKEN)
        assert answers == [no, handshake.bound(), no]
        assert len(core_of(one).links) == 1
        for _, other in [*streams, (reader, writer)]:
            other.close()


async def test_strangers_get_few_unfinished_connections_and_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules: L-14."""
    monkeypatch.setattr("mfd.net.transport.HANDSHAKE_SECONDS", 0.3)
    async with node(tmp_path, 1) as one:
        streams = [await upgraded(one) for _ in range(8)]
        url = f"http://{one.address}{PATH}"
        head = {"Upgrade": UPGRADE}
        async with aiohttp.ClientSession(headers=head) as session, session.get(url) as answer:
            assert answer.status == 429
        late = handshake.refusal(handshake.Refusal.LATE)
        for stream in streams:
            assert (await gone(*stream))[4:] == late
        reader, writer = await upgraded(one)
        writer.close()
        await gone(reader, writer)


async def test_a_dialler_does_not_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules: L-14."""
    monkeypatch.setattr("mfd.net.transport.HANDSHAKE_SECONDS", 0.2)
    writers = []
    server = await asyncio.start_server(lambda r, w: writers.append(w), "127.0.0.1", 0)
    async with server, node(tmp_path, 1) as one:
        port = server.sockets[0].getsockname()[1]
        assert "no answer" in await refusal(one, f"127.0.0.1:{port}")
        for writer in writers:
            writer.close()


async def test_where_both_dial_the_link_of_the_smaller_id_stays(tmp_path: Path) -> None:
    """Rules: L-19."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        smaller, larger = sorted((one, other), key=lambda made: made._core.id)
        perform(smaller, Dial(larger.join_line))
        perform(larger, Dial(smaller.join_line))

        def settled(made: Node) -> bool:
            return [up.outbound for up in core_of(made).links.values()] == [made is smaller]

        def done(core: FakeCore) -> bool:
            return bool(core.of(DialFailed) or core.of(LinkDown))

        await core_of(larger).wait_for(lambda: settled(larger) and done(core_of(larger)))
        await core_of(smaller).wait_for(lambda: settled(smaller))
        send(smaller, next(iter(core_of(smaller).links)), b"hello")
        await core_of(larger).wait_for(lambda: core_of(larger).frames == [b"hello"])


async def test_a_peer_that_stops_says_so_to_whoever_dials(tmp_path: Path) -> None:
    """Rules: L-01, L-15"""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        other._transport._stopping = True
        reason = await refusal(one, other.join_line)
        assert reason.startswith("refused by the other side: the peer at this address is stopping")
        assert not core_of(one).of(DialFailed)[-1].standing


async def test_a_link_that_was_being_made_when_the_peer_stops_is_none_that_stands(
    tmp_path: Path,
) -> None:
    """Rules: L-01, L-15"""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        bind = other._transport._bind

        def stopping(*told: object) -> None:
            other._transport._stopping = True
            bind(*told)

        other._transport._bind = stopping
        assert "is stopping" in await refusal(one, other.join_line)


async def test_a_second_dial_from_the_larger_id_is_refused(tmp_path: Path) -> None:
    """Rules: L-19."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        smaller, larger = sorted((one, other), key=lambda made: made._core.id)
        await link(smaller, larger)
        perform(larger, Dial(smaller.join_line))
        core = core_of(larger)
        await core.wait_for(lambda: core.of(DialFailed))
        assert "already a link" in reason_of(core)
        assert core.of(DialFailed)[-1].standing == smaller._core.id
        assert len(core.links) == len(core_of(smaller).links) == 1


async def test_the_smaller_id_refuses_the_second_link_of_the_larger(tmp_path: Path) -> None:
    """Rules: L-15, L-19."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        smaller, larger = sorted((one, other), key=lambda made: made._core.id)
        up, _ = await link(smaller, larger)
        larger._transport.links.clear()
        perform(larger, Dial(smaller.join_line))
        core = core_of(larger)
        await core.wait_for(lambda: core.of(DialFailed))
        assert reason_of(core).startswith("refused by the other side: there is already a link")
        assert core.of(DialFailed)[-1].standing == smaller._core.id
        assert core_of(smaller).links.keys() == {up.link}


async def test_a_second_address_of_the_same_peer_makes_no_second_link(tmp_path: Path) -> None:
    """Rules: L-19."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        first, _ = await link(one, other)
        perform(one, Dial(other.address))
        core = core_of(one)
        await core.wait_for(lambda: core.of(DialFailed))
        assert "already a link" in reason_of(core)
        assert core.links.keys() == {first.link}
        assert len(core_of(other).of(LinkUp)) == 1


async def test_a_new_link_takes_the_place_of_one_that_is_dead_over_there(tmp_path: Path) -> None:
    """The dialler has started again, and its old end is lost. Rules: L-19."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        _, old = await link(one, other)
        one._transport.links.clear()
        perform(one, Dial(other.join_line))
        core = core_of(other)
        await core.wait_for(lambda: len(core.of(LinkUp)) == 2)
        assert [down.link for down in core.of(LinkDown)] == [old.link]
        assert core.links.keys() == {old.link + 1}
        assert core.events.index(core.of(LinkDown)[0]) < core.events.index(core.of(LinkUp)[1])


async def test_control_overtakes_bulk_that_nobody_reads(tmp_path: Path) -> None:
    """Megabytes wait on bulk; a control frame sent after them still arrives. Rules: L-20."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, up2 = await link(one, other)
        far = other._transport.links[up2.link].bulk
        far._transport.pause_reading()
        near = one._transport.links[up.link].bulk
        total = 0
        while near.queue_bytes < 12 << 20:
            send(one, up.link, bytes(65_536), "bulk")
            total += 1
        send(one, up.link, b"ping")
        core = core_of(other)
        await core.wait_for(lambda: core.frames)
        assert core.frames == [b"ping"]
        assert near.queue_bytes >= 4 << 20
        far._transport.resume_reading()
        await core.wait_for(lambda: len(core.frames) == 1 + total)
        assert near.queue_bytes == 0


async def test_a_neighbour_that_stops_reading_control_is_let_go(tmp_path: Path) -> None:
    """Rules: L-21."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        up, up2 = await link(one, other)
        other._transport.links[up2.link].control._transport.pause_reading()
        count = 0
        while core_of(one).links and count < 10_000:
            send(one, up.link, bytes(60_000))
            count += 1
            if count % 100 == 0:
                await asyncio.sleep(0)
        core = core_of(one)
        await core.wait_for(lambda: core.of(LinkDown))
        assert "does not read" in core.of(LinkDown)[0].reason
        assert count * 60_000 < 64 << 20


async def test_a_link_over_tls_is_bound_to_its_certificate(tmp_path: Path) -> None:
    """Rules: L-09, L-16."""
    ours, theirs = Tls.fresh(), Tls.fresh()
    async with node(tmp_path, 1, tls=ours) as one, node(tmp_path, 2, tls=theirs) as other:
        up, _ = await link(one, other)
        send(one, up.link, bytes(60_000), "bulk")
        core = core_of(other)
        await core.wait_for(lambda: core.frames == [bytes(60_000)])
        perform(one, Close(up.link, "next"))
        other._transport._tls = ours  # as if somebody in between showed a certificate of his own
        assert "did not verify" in await refusal(one, other.address)
