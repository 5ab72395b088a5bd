"""A whole node around a core that does what the test says."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
from aiohttp import web

from mfd.core.effects import CancelLearn, Dial, Fetch, Keep, Learn, Report, Send, Store
from mfd.core.events import (
    Addressed,
    CommandFailed,
    Event,
    Fetched,
    Held,
    Injected,
    Joined,
    Kept,
    Learned,
    LearnFailed,
    LinkDown,
    Received,
    Restored,
    StopRequested,
    Stored,
    Ticked,
    Unheld,
)
from mfd.net.clock import now_us
from mfd.net.driver import Node, NodeError
from mfd.net.trainerpipe import TrainerPipe
from mfd.packet.objects import LayerObject, pack_layer
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.task import LayerRef, LearnTask
from tests.net.test_injection import file_of
from tests.net.worlds import core_of, node, perform, send

ITEM = pack_layer({"w": np.arange(100_000, dtype=np.float32)})
KEEP = Keep(1, ITEM.digest, ITEM.raw_bytes, 0, ITEM.chunks, 0, ITEM.tobytes())


async def linked(one: Node, other: Node) -> None:
    perform(one, Dial(other.join_line))
    for made, peer in ((one, other._core.id), (other, one._core.id)):
        links = core_of(made).links
        await core_of(made).wait_for(
            lambda links=links, peer=peer: any(up.peer == peer for up in links.values())
        )


async def test_the_first_event_is_restored_with_what_the_disk_holds(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        assert core_of(one).events == [Restored(1), Addressed((one.address,))]
        perform(one, KEEP, Store(2, (ITEM.digest,), (("row", b"1"),)))
        await core_of(one).wait_for(lambda: core_of(one).of(Stored))
        assert core_of(one).events[-2:] == [Kept(1), Stored(2)]
    assert core_of(one).events[-1] == StopRequested()
    async with node(tmp_path, 1) as one:
        restored = Restored(2, {"row": b"1"}, {ITEM.digest: ITEM.raw_bytes})
        assert core_of(one).events == [restored, Addressed((one.address,))]


async def test_effects_of_the_disk_are_answered_in_order(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        perform(one, KEEP, Store(2, (ITEM.digest,)), Fetch(3, ITEM.digest, 0), Store(4))
        core = core_of(one)
        await core.wait_for(lambda: Stored(4) in core.events)
        assert [type(event) for event in core.events[-4:]] == [Kept, Stored, Fetched, Stored]


async def test_the_one_timer_follows_the_deadline(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        core = core_of(one)
        core.deadline = now_us() + 10_000

        def once(event: Event) -> list[Any]:
            if isinstance(event, Ticked):
                assert core.deadline is not None
                assert now_us() >= core.deadline - 1_000
                core.deadline = None
            return []

        core.script = once
        one.post(Unheld("cue"))
        await core.wait_for(lambda: core.of(Ticked))
        assert one._timer is None


async def test_a_frame_can_be_passed_on_as_it_is(tmp_path: Path) -> None:
    """A relay's Send names the bytes that were received; nobody copies them."""
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as relay, node(tmp_path, 3) as three:
        await linked(one, relay)
        await linked(relay, three)
        there = next(n for n, up in core_of(relay).links.items() if up.peer == three._core.id)

        def forward(event: Event) -> list[Any]:
            if isinstance(event, Received) and event.link != there:
                return [Send(there, "bulk", (b"via", event.frame))]
            return []

        core_of(relay).script = forward
        link = next(iter(core_of(one).links))
        sent = [bytes([n % 251]) * 60_000 for n in range(200)]
        for body in sent:
            send(one, link, body, "bulk")
        await core_of(three).wait_for(lambda: len(core_of(three).frames) == len(sent))
        assert core_of(three).frames == [b"via" + body for body in sent]


async def test_reports_are_kept_shown_and_waited_for(tmp_path: Path) -> None:
    seen: list[Any] = []
    async with node(tmp_path, 1, on_report=seen.append) as one:
        waiting = asyncio.ensure_future(one.wait_reports(after=0, seconds=60))
        await asyncio.sleep(0)
        perform(one, Report("moved", {"walker": "ab", "peer": b"\1"}))
        await waiting
        assert one.reports(after=0, walker="a") == seen
        assert seen[0]["peer"] == "01"


async def test_http_pages_and_links_share_the_port(tmp_path: Path) -> None:
    async def page(request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async with (
        node(tmp_path, 1, routes=[web.get("/", page)]) as one,
        node(tmp_path, 2) as other,
        aiohttp.ClientSession() as session,
    ):
        await linked(other, one)
        async with session.get(f"http://{one.address}/") as answer:
            assert await answer.text() == "hello"
        status = one.status()
        assert status["address"] == one.address
        assert status["bytes"]["control_in"] > 100
        assert set(status["link_bytes"][1]) == {
            f"{channel}_{way}" for channel in ("control", "bulk") for way in ("in", "out")
        }


async def test_commands_reach_the_core_and_its_refusals_the_owner(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        core = core_of(one)
        one.join("10.0.0.1:80")
        assert core.events[-1] == Joined("10.0.0.1:80")
        with pytest.raises(CommandFailed, match="write host:port"):
            one.join("nonsense")

        def refuse(event: Event) -> list[Any]:
            raise CommandFailed("no more")

        core.script = refuse
        with pytest.raises(CommandFailed, match="no more"):
            one.join("10.0.0.2:80")
        core.script = lambda event: []
        one.unhold("x")
        assert core.events[-1] == Unheld("x")


async def body_of(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def test_an_injected_walker_reaches_the_core_after_its_objects(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        core = core_of(one)
        store = one._disk.store

        def refuse(event: Event) -> list[Any]:
            if isinstance(event, Injected):
                raise CommandFailed("no room")
            return []

        core.script = refuse
        with pytest.raises(CommandFailed, match="no room"):
            await one.inject(body_of(file_of()))
        await one._disk.call(lambda: None)
        assert not list(store.incoming.iterdir())
        core.script = lambda event: []
        walker = await one.inject(body_of(file_of()))
        assert len(walker) == 64
        assert core.of(Injected)
        assert len(list(store.incoming.iterdir())) == 2
        with pytest.raises(CommandFailed, match="not an injection file"):
            await one.inject(body_of(bytes(100)))
        with pytest.raises(CommandFailed, match="no walker"):
            await one.model(walker)


async def test_the_real_trainer_learns_for_the_core(tmp_path: Path) -> None:
    """From Learn to Learned through the child process, on the data that the node holds.

    Rules: R-25
    """
    recipe = {"zoo": "mlp", "inputs": [64], "classes": 10, "hidden": [8]}
    plan = Plan(recipe, ("digits/train",), bytes(32), learn={"epochs": 1})
    holdings = {"digits/train": "sklearn:digits?part=1/5"}
    async with node(tmp_path, 1, holdings=holdings) as one:
        core = core_of(one)
        held = core.of(Held)[0]
        assert held.name == "digits/train"
        assert held.samples > 100
        assert held.labels == b""  # its owner has not asked for it to be told
        await one.hold("open", "sklearn:digits?part=1/5&announce=labels")
        shares = core.of(Held)[1].labels
        assert len(shares) == 10
        assert 18 <= sum(shares) <= 22
        layers = _initial_layers(recipe)
        refs = tuple(ref for ref, _ in layers)
        keeps = [
            Keep(1, item.digest, item.raw_bytes, 0, item.chunks, 0, item.tobytes())
            for _, item in layers
        ]
        task = LearnTask(
            "train", encode_plan(plan), refs, "digits/train", trained=((0, len(refs)),)
        )
        perform(one, *keeps, Learn(5, task))
        event = await core.wait_for(lambda: core.of(LearnFailed) or core.of(Learned))
        assert isinstance(event[0], Learned), event
        result = event[0].result
        assert result.claims["samples"] > 0
        perform(one, Store(6, tuple(ref.digest for ref in result.layers)))
        await core.wait_for(lambda: Stored(6) in core.events)
        perform(one, Learn(7, replace(task, name="elsewhere")))
        failed = await core.wait_for(lambda: core.of(LearnFailed))
        assert "elsewhere" in failed[0].reason


def _initial_layers(recipe: dict[str, Any]) -> list[tuple[LayerRef, LayerObject]]:
    pytest.importorskip("torch")
    from mfd.learn import layers, zoo

    return layers.pack_model(zoo.init(recipe, 1))


async def test_a_cancelled_job_is_answered(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one:
        task = LearnTask("train", b"", ())
        perform(one, Learn(3, task), CancelLearn(3), CancelLearn(99))
        core = core_of(one)
        failed = await core.wait_for(lambda: core.of(LearnFailed))
        assert failed == [LearnFailed(3, "the task was cancelled")]


async def test_a_node_without_data_starts_no_trainer(tmp_path: Path) -> None:
    trainer = TrainerPipe()
    async with node(tmp_path, 1, trainer=trainer) as one, node(tmp_path, 2) as other:
        await linked(one, other)
    assert trainer.pid is None
    assert trainer._process is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"listen": "nonsense"}, "write host:port"),
        ({"listen": "203.0.113.1:80"}, "cannot be listened on: it is not this machine's"),
        ({"holdings": {"d": "sklearn:digits?part=6/5"}}, "data 'd': data address 'sklearn:digits"),
    ],
)
async def test_a_node_that_cannot_start_says_why(
    tmp_path: Path, options: Any, sentence: str
) -> None:
    with pytest.raises(NodeError, match=sentence):
        await node(tmp_path, 1, **options).__aenter__()
    async with node(tmp_path, 1):  # everything was let go
        pass


async def test_a_port_or_a_folder_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(NodeError, match=f"address 127.0.0.1:{port} is in use"):
            await node(tmp_path, 1, listen=f"127.0.0.1:{port}").__aenter__()
    async with node(tmp_path, 1):
        with pytest.raises(NodeError, match="in use by another peer"):
            await node(tmp_path, 1).__aenter__()


async def test_a_core_that_breaks_its_promise_stops_the_node(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        await linked(one, other)
        core_of(one).script = lambda event: 1 // 0  # type: ignore[return-value]
        one.post(Unheld("cue"))
        assert "ZeroDivisionError" in str(await one.failed)
        await core_of(other).wait_for(lambda: core_of(other).of(LinkDown))
        seen = len(core_of(one).events)
        one.post(Unheld("cue"))
        assert len(core_of(one).events) == seen
    assert "the peer failed" in caplog.text


async def test_stop_under_load_is_quick_and_leaves_nothing(tmp_path: Path) -> None:
    """Links full in both directions, the disk busy, a job running; then nothing is left."""
    tasks, threads = asyncio.all_tasks(), threading.active_count()
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        await linked(one, other)
        for made in (one, other):
            link = next(iter(core_of(made).links))
            near = made._transport.links[link]
            near.bulk._transport.pause_reading()
            for _ in range(100):
                send(made, link, bytes(65_000), "bulk")
                send(made, link, bytes(500))
            perform(made, KEEP, *(Store(n, put=(("row", b"x"),)) for n in range(2, 30)))
        begin = time.monotonic()
        await asyncio.gather(one.stop(), other.stop())
        assert time.monotonic() - begin < 2
    assert asyncio.all_tasks() == tasks
    assert threading.active_count() <= threads + 1  # asyncio's own watcher of children may stay
    for made in (one, other):
        assert not made._transport._connections
        host, port = made.address.split(":")
        with pytest.raises(OSError, match="refused") as caught:
            socket.create_connection((host, int(port)))
        assert caught.value.errno == errno.ECONNREFUSED


async def test_stop_says_goodbye_before_it_closes(tmp_path: Path) -> None:
    async with node(tmp_path, 1) as one, node(tmp_path, 2) as other:
        await linked(one, other)
        link = next(iter(core_of(one).links))
        core_of(one).script = lambda event: (
            [Send(link, "control", (b"bye",))] if isinstance(event, StopRequested) else []
        )
        await one.stop()
        core = core_of(other)
        await core.wait_for(lambda: core.of(LinkDown))
        assert core.frames == [b"bye"]
        await one.stop()
