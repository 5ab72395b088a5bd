"""A walker on real sockets and disks: from holder to holder through a relay, and home."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np

from mfd.core.certificates import Genesis, seal_genesis, walker_id
from mfd.core.config import Config
from mfd.core.custody import PLAN_DOMAIN
from mfd.core.peer import Peer
from mfd.net.driver import Node
from mfd.net.injection import pack_injection
from mfd.net.keys import KeyPair, verify
from mfd.net.sealing import Sealing
from mfd.packet.objects import object_digest, pack_layer, unpack_layer
from mfd.packet.packet import Packet, decode, encode
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.signing import seal
from mfd.packet.task import LayerRef, LearnResult, LearnTask

SAMPLES = 100
FLOATS = 700_000  # three chunks a layer


class AddOne:
    """A trainer that adds 1 to every number of the layers that it is to train."""

    def __init__(self) -> None:
        self.stops: list[tuple[tuple[int, int], ...]] = []

    def hold(self, name: str, address: str) -> None:
        self.address = address

    async def describe(self, name: str) -> Mapping[str, Any]:
        return {"samples": SAMPLES}

    async def perform(
        self,
        task: LearnTask,
        objects: Mapping[bytes, Path],
        out: Path,
        *,
        progress: Callable[[float], None],
    ) -> LearnResult:
        assert task.kind == "train"
        self.stops.append(task.trained)
        made = []
        for ref in task.layers:
            if not any(low <= ref.index < high for low, high in task.trained):
                continue
            tensors = unpack_layer(objects[ref.digest].read_bytes())
            item = pack_layer({name: tensor.array() + 1 for name, tensor in tensors.items()})
            (out / f"{item.digest.hex()}.part").write_bytes(item.tobytes())
            made.append(LayerRef(ref.index, ref.name, item.digest, item.raw_bytes))
        return LearnResult(tuple(made), {"samples": float(SAMPLES), "loss": 1.0})

    async def close(self) -> None:
        pass


def peer(folder: Path, number: int, trainer: AddOne, **options: Any) -> Node:
    keys, config = KeyPair.from_seed(bytes([number]) * 32), Config()
    core = Peer(signer=keys, verify=verify, config=config, seed=bytes([number]), sealer=Sealing())
    state = folder / str(number)
    return Node(core, keys, state=state, config=config, trainer=trainer, **options)


def new_walker(home: KeyPair) -> tuple[str, list[Any]]:
    schedule = {"laps": 2, "full_laps": 0, "layers_per_stop": 1, "head": False}
    plan = Plan({"zoo": "any"}, ("data",), home.public_key, **schedule)  # type: ignore[arg-type]
    record = seal(PLAN_DOMAIN, encode_plan(plan), home)
    body = Genesis(home.public_key, b"n" * 16, bytes(32), object_digest(record), 2, "manual")
    genesis = seal_genesis(body, home)
    dice = np.random.default_rng(1)
    arrays = {name: {"w": dice.integers(0, 99, FLOATS).astype(np.float32)} for name in "abc"}
    packet = Packet.from_tensors(
        arrays, signer=home, walker=walker_id(genesis), plan=object_digest(record)
    )
    return walker_id(genesis).hex(), pack_injection(genesis, record, encode(packet))


async def pieces(parts: list[Any]) -> AsyncIterator[bytes]:
    for part in parts:
        yield bytes(part)


async def wait_report(made: Node, kind: str) -> dict[str, Any]:
    after = 0
    while True:
        for report in made.reports(after=after):
            after = report["n"]
            if report["kind"] == kind:
                return report
        await made.wait_reports(after=after, seconds=30)


async def wait_route(made: Node, holders: int) -> None:
    """Routes come by themselves: the loop is yielded to until they are there."""
    while len({route["holder"] for route in made.status()["routes"]}) < holders:
        await asyncio.sleep(0)


async def test_a_walker_visits_every_holder_and_comes_home_changed(tmp_path: Path) -> None:
    holders = [AddOne(), AddOne()]
    hold = {"holdings": {"data": "any"}}
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        home = await stack.enter_async_context(peer(tmp_path, 1, holders[0], **hold))
        relay = await stack.enter_async_context(peer(tmp_path, 2, AddOne()))
        far = await stack.enter_async_context(peer(tmp_path, 3, holders[1], **hold))
        home.join(relay.join_line)
        far.join(relay.join_line)
        await wait_route(home, 2)
        walker, parts = new_walker(KeyPair.from_seed(bytes([1]) * 32))
        assert await home.inject(pieces(parts)) == walker
        await wait_report(home, "arrived")

        # Two laps, one layer a lap, two holders: layers 0 and 1 were trained twice each.
        assert [trainer.stops for trainer in holders] == [[((0, 1),), ((1, 2),)]] * 2
        out = decode(b"".join(await home.model(walker)), verify)
        out.check()
        dice = np.random.default_rng(1)
        for name, added in (("a", 2), ("b", 2), ("c", 0)):
            first = dice.integers(0, 99, FLOATS).astype(np.float32)
            assert np.array_equal(out.tensors()[name]["w"].array(), first + added)
        status = relay.status()
        assert status["objects"] == 0
        assert status["bytes"]["bulk_out"] > 3 * FLOATS  # passed on, nothing kept
        assert not list((tmp_path / "2" / "objects").iterdir())
