"""Real peers for scenarios: a trainer that adds one, walkers of random bytes, what to wait for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
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
from mfd.packet.objects import LayerObject, object_digest, pack_layer, unpack_layer
from mfd.packet.packet import Packet, encode
from mfd.packet.plan import Plan, encode_plan
from mfd.packet.signing import seal
from mfd.packet.task import LayerRef, LearnResult, LearnTask

SAMPLES = 100
HOLD = {"holdings": {"data": "any"}}


def plus_one(data: bytes | memoryview) -> LayerObject:
    """What training does to a layer: every number and one."""
    return pack_layer({name: t.array() + 1 for name, t in unpack_layer(data).items()})


class AddOne:
    """A trainer that adds 1 to every number of the layers that it is to train."""

    def __init__(self) -> None:
        self.stops: list[tuple[tuple[int, int], ...]] = []

    def hold(self, name: str, address: str) -> None:
        self.address = address

    async def describe(self, name: str) -> Mapping[str, Any]:
        return {"samples": SAMPLES}

    def told(self) -> Mapping[str, Any]:
        return {"forms": {}, "resident": None}

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
            if any(low <= ref.index < high for low, high in task.trained):
                item = plus_one(objects[ref.digest].read_bytes())
                (out / f"{item.digest.hex()}.part").write_bytes(item.tobytes())
                made.append(LayerRef(ref.index, ref.name, item.digest, item.raw_bytes))
        return LearnResult(tuple(made), {"samples": float(SAMPLES), "loss": 1.0})

    async def close(self) -> None:
        pass


def key(number: int) -> KeyPair:
    return KeyPair.from_seed(bytes([number]) * 32)


def peer(folder: Path, number: int, config: Config | None = None, **options: Any) -> Node:
    config = config or Config()
    keys = key(number)
    core = Peer(signer=keys, verify=verify, config=config, seed=bytes([number]), sealer=Sealing())
    options.setdefault("trainer", AddOne())
    return Node(core, keys, state=folder / str(number), config=config, **options)


def layers_of(sizes: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Layers of bytes that no encoding makes smaller."""
    dice = np.random.default_rng(1)
    return {f"layer{at}": {"w": dice.integers(0, 256, n, np.uint8)} for at, n in enumerate(sizes)}


def plan_for(home: bytes, **schedule: Any) -> Plan:
    fields = {"laps": 2, "full_laps": 0, "layers_per_stop": 1, "head": False, **schedule}
    return Plan({"zoo": "any"}, ("data",), home, **fields)


def new_walker(home: KeyPair, sizes: list[int], **schedule: Any) -> tuple[str, list[Any]]:
    record = seal(PLAN_DOMAIN, encode_plan(plan_for(home.public_key, **schedule)), home)
    body = Genesis(home.public_key, b"n" * 16, bytes(32), object_digest(record), 2, "manual")
    genesis = seal_genesis(body, home)
    packet = Packet.from_tensors(
        layers_of(sizes), signer=home, walker=walker_id(genesis), plan=object_digest(record)
    )
    return walker_id(genesis).hex(), pack_injection(genesis, record, encode(packet))


async def pieces(parts: list[Any]) -> AsyncIterator[bytes]:
    for part in parts:
        yield bytes(part)


async def wait_report(made: Node, kind: str, *, times: int = 1) -> dict[str, Any]:
    """Wait for the report of a kind that comes as the `times`-th."""
    after, left = 0, times
    while True:
        for report in made.reports(after=after):
            after = report["n"]
            left -= report["kind"] == kind
            if not left:
                return report
        await made.wait_reports(after=after, seconds=30)


async def wait_route(made: Node, holders: int) -> None:
    """Routes come by themselves: the loop is yielded to until they are there."""
    while len({route["holder"] for route in made.status()["routes"]}) < holders:
        await asyncio.sleep(0)
