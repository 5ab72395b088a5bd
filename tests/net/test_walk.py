"""A walker on real sockets and disks: from holder to holder through a relay, and home."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from mfd.net.keys import verify
from mfd.packet.packet import decode
from tests.net.travel import (
    HOLD,
    AddOne,
    key,
    layers_of,
    new_walker,
    peer,
    pieces,
    wait_report,
    wait_route,
)

SIZES = [2_800_000] * 3  # three chunks a layer


async def test_a_walker_visits_every_holder_and_comes_home_changed(tmp_path: Path) -> None:
    """Rules: T-07, T-23"""
    holders = [AddOne(), AddOne()]
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        home = await enter(peer(tmp_path, 1, trainer=holders[0], **HOLD))
        relay = await enter(peer(tmp_path, 2))
        far = await enter(peer(tmp_path, 3, trainer=holders[1], **HOLD))
        home.join(relay.join_line)
        far.join(relay.join_line)
        await wait_route(home, 2)
        walker, parts = new_walker(key(1), SIZES)
        assert await home.inject(pieces(parts)) == walker
        await wait_report(home, "arrived")

        # Two laps, one layer a lap, two holders: layers 0 and 1 were trained twice each.
        assert [trainer.stops for trainer in holders] == [[((0, 1),), ((1, 2),)]] * 2
        out = decode(b"".join(await home.model(walker)), verify)
        out.check()
        for (name, first), added in zip(layers_of(SIZES).items(), (2, 2, 0), strict=True):
            found = out.tensors()[name]["w"].array()
            assert np.array_equal(found, first["w"] + np.uint8(added))
        status = relay.status()
        assert status["objects"] == 0
        assert status["bytes"]["bulk_out"] > sum(SIZES)  # passed on, nothing kept
        assert not list((tmp_path / "2" / "objects").iterdir())
