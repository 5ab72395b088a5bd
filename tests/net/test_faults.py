"""The real driver through a faulty network: links that are cut, silent, half gone or slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from mfd.core.config import Config
from mfd.net.driver import Node
from mfd.packet.limits import CHUNK_BYTES
from tests.net.proxy import Proxy
from tests.net.travel import HOLD, key, new_walker, peer, pieces, wait_report, wait_route

QUICK = Config(
    heartbeat_us=100_000, suspect_us=300_000, down_us=400_000, redial_min_us=20_000,
    redial_max_us=100_000, bases_kept=0,
)  # the shape of the real figures, twenty times faster; whole chunks, counted by bytes  # fmt: skip
LAYERS = [6 << 20, 6 << 20]
TOTAL = sum(LAYERS)


@asynccontextmanager
async def far_holder(
    folder: Path, config: Config = QUICK
) -> AsyncIterator[tuple[Node, Proxy, Node]]:
    """Home, a proxy, a relay, and the only holder behind it."""
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        relay = await enter(peer(folder, 2, config))
        home = await enter(peer(folder, 1, Config(**{**_fields(config), "custodian": True})))
        far = await enter(peer(folder, 3, config, **HOLD))
        proxy = await enter(Proxy(relay.address))
        far.join(relay.join_line)
        home.join(proxy.address)
        await wait_route(home, 1)
        yield home, proxy, far


def _fields(config: Config) -> dict[str, Any]:
    return {name: getattr(config, name) for name in config.__slots__}


async def set_off(home: Node, **schedule: Any) -> str:
    walker, parts = new_walker(key(1), LAYERS, **{"laps": 1, **schedule})
    assert await home.inject(pieces(parts)) == walker
    return walker


async def test_a_transfer_goes_on_where_it_was_cut(tmp_path: Path) -> None:
    """Rules: T-09, T-15"""
    async with far_holder(tmp_path) as (home, proxy, far):
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 2))
        await set_off(home)
        await passing
        proxy.cut()
        handed = await wait_report(home, "handed")
        assert handed["target"] == far.status()["peer"]
        window = 4 << 20
        assert TOTAL < handed["sent_bytes"] < TOTAL + window + 2 * CHUNK_BYTES
        assert home.status()["counters"].get("seals_broken", 0) == 0
        assert await wait_report(home, "unlinked")
        assert proxy.connections >= 4  # two a link, and a second link


async def test_cut_again_and_again_it_still_arrives(tmp_path: Path) -> None:
    """Rules: T-15"""
    async with far_holder(tmp_path) as (home, proxy, _):
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 4))
        await set_off(home)
        for _ in range(3):
            await passing
            proxy.cut()
            passing = asyncio.ensure_future(proxy.passed(TOTAL // 4))
        handed = await wait_report(home, "handed")
        passing.cancel()
        assert handed["sent_bytes"] < 2 * TOTAL


async def test_a_silent_link_is_given_up_and_dialled_again(tmp_path: Path) -> None:
    """Rules: T-09, T-15"""
    async with far_holder(tmp_path) as (home, proxy, _):
        clock = asyncio.get_running_loop().time
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 2))
        await set_off(home)
        await passing
        proxy.stall()
        begin = clock()
        unlinked = await wait_report(home, "unlinked")
        assert "silent" in unlinked["reason"]
        assert clock() - begin >= 0.9 * QUICK.down_us / 1e6 - QUICK.heartbeat_us / 1e6
        proxy.cut()
        proxy.resume()
        assert await wait_report(home, "handed")


async def test_a_half_open_link_is_found_out_and_replaced(tmp_path: Path) -> None:
    """The listener has lost the link, the dialler was not told. Rules: L-19"""
    async with far_holder(tmp_path) as (home, proxy, _):
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 2))
        await set_off(home)
        await passing
        proxy.half_open()
        unlinked = await wait_report(home, "unlinked")
        assert "silent" in unlinked["reason"]
        assert await wait_report(home, "linked", times=2)
        assert await wait_report(home, "handed")


async def test_a_slow_way_carries_everything(tmp_path: Path) -> None:
    async with far_holder(tmp_path, Config(redial_min_us=20_000)) as (home, proxy, _):
        proxy.delay_s = 0.02
        await set_off(home)
        handed = await wait_report(home, "handed")
        assert handed["seconds"] > 0.2  # OFFER, ACCEPT, OPEN, OPENED, hello, objects, STORED


@pytest.mark.parametrize("fault", ["cut", "half_open"])
async def test_the_model_is_whole_after_a_fault_at_every_transfer(
    tmp_path: Path, fault: str
) -> None:
    """Rules: T-15"""
    async with far_holder(tmp_path) as (home, proxy, far):
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 2))
        walker = await set_off(home, layers_per_stop=2)
        await passing
        getattr(proxy, fault)()
        assert await wait_report(far, "stop")
        passing = asyncio.ensure_future(proxy.passed(TOTAL // 2))  # on its way home
        await passing
        getattr(proxy, fault)()
        arrived = await wait_report(home, "arrived")
        assert arrived["walker"] == walker
