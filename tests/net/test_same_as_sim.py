"""One scenario in both worlds: what peers count on real sockets is what the simulator counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from mfd.core.birth import bear
from mfd.core.events import Kept
from mfd.packet.objects import Buffer, LayerObject, pack_layer
from mfd.packet.task import LayerRef, LearnResult, LearnTask
from mfd.sim.keys import SimKey
from mfd.sim.world import World
from tests.net.proxy import Proxy
from tests.net.test_faults import QUICK
from tests.net.travel import (
    HOLD,
    SAMPLES,
    key,
    layers_of,
    new_walker,
    peer,
    pieces,
    plan_for,
    plus_one,
    wait_report,
    wait_route,
)

SIZES = [8 << 20, 8 << 20, 3 << 20]
NAMES = ("home", "relay", "far")
Counts = dict[str, dict[str, int]]


class SimAddOne:
    """The trainer of the real scenario, in the simulator."""

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        made = []
        for ref in task.layers:
            if any(low <= ref.index < high for low, high in task.trained):
                item = plus_one(read(ref.digest))
                write(item)
                made.append(LayerRef(ref.index, ref.name, item.digest, item.raw_bytes))
        claims = {"samples": float(SAMPLES), "loss": 1.0, "seconds": 0.01}
        return LearnResult(tuple(made), claims)


def simulated(*, cut: bool) -> Counts:
    world = World(1, QUICK)
    for name in NAMES:
        world.add(name, learner=None if name == "relay" else SimAddOne())
    world.link("home", "relay", latency_us=100)
    world.link("far", "relay", latency_us=100)
    hosts = world.hosts
    for name in ("home", "far"):
        hosts[name].hold("data", SAMPLES)
    assert world.run(until=lambda: len(hosts["home"].peer.status().routes) == 2, seconds=10)
    objects = [(name, pack_layer(tensors)) for name, tensors in layers_of(SIZES).items()]
    plan = plan_for(hosts["home"].key.public_key)
    birth = bear(plan, objects, SimKey(b"creator"), nonce=bytes(16), reissue="manual", copies=2)
    for layer in birth.objects:
        hosts["home"].disk.add(layer)
    if cut:
        kept = [0]

        def count(host: Any, event: Any, _: Any) -> None:
            kept[0] += host.name == "far" and isinstance(event, Kept)
            if kept[0] == 9:  # about half of the first transfer
                kept[0] += 1
                world.unplug("home", "relay")
                world.plug("home", "relay")

        world.observers.append(count)
    world.happen(hosts["home"], birth.event)
    arrived = lambda: any(r.kind == "arrived" for _, r in hosts["home"].reports)  # noqa: E731
    assert world.run(until=arrived, seconds=600)
    return {
        name: {
            "bulk": host.sent_bytes["bulk"],
            **host.peer.status().counters,
            "handed": sum(r.kind == "handed" for _, r in host.reports),
            "stops": sum(r.kind == "stop" for _, r in host.reports),
        }
        for name, host in hosts.items()
    }


async def real(folder: Path, *, cut: bool) -> Counts:
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        relay = await enter(peer(folder, 2, QUICK))
        home = await enter(peer(folder, 1, QUICK, **HOLD))
        far = await enter(peer(folder, 3, QUICK, **HOLD))
        proxy = await enter(Proxy(relay.address))
        home.join(proxy.address)
        far.join(relay.join_line)
        await wait_route(home, 2)
        walker, parts = new_walker(key(1), SIZES)
        passing = asyncio.ensure_future(proxy.passed(9 << 20))
        assert await home.inject(pieces(parts)) == walker
        if cut:
            await passing
            proxy.cut()
        await wait_report(home, "arrived")
        while far.status()["counters"].get("handovers", 0) < 2:
            await asyncio.sleep(0)  # the last OWNED is on its way
        counts = {}
        for name, node in zip(NAMES, (home, relay, far), strict=True):
            status, told = node.status(), node.reports()
            counts[name] = {
                "bulk": status["bytes"]["bulk_out"],
                **status["counters"],
                "handed": sum(report["kind"] == "handed" for report in told),
                "stops": sum(report["kind"] == "stop" for report in told),
            }
        return counts


@pytest.mark.parametrize("cut", [False, True])
async def test_counters_agree_within_a_tenth(tmp_path: Path, cut: bool) -> None:
    told, expected = await real(tmp_path, cut=cut), simulated(cut=cut)
    assert expected["home"]["handed"] >= 2
    assert expected["far"]["bulk"] > SIZES[0]
    for name in NAMES:
        for counter in ("bulk", "handed", "stops", "handovers", "circuits_relayed"):
            ours, theirs = told[name].get(counter, 0), expected[name].get(counter, 0)
            assert abs(ours - theirs) <= 0.1 * theirs, (name, counter, ours, theirs)
