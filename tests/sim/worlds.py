"""Small worlds for tests: hosts on a graph, each holder with a stand-in learner, and a walker."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mfd.core.birth import Birth, bear
from mfd.core.config import Config
from mfd.packet.objects import pack_layer
from mfd.packet.plan import Plan
from mfd.sim.keys import SimKey
from mfd.sim.standin import StandIn
from mfd.sim.world import Host, World

LAYER_FLOATS = 1_000


def world_of(
    edges: Iterable[tuple[str, str]],
    holders: Iterable[str],
    *,
    seed: int = 1,
    config: Config | None = None,
    verifier: str = "",
    sealed: bool = True,
) -> World:
    world = World(seed, config, sealed=sealed)
    edges = list(edges)
    holders = set(holders)
    for name in sorted({name for edge in edges for name in edge}):
        learner = StandIn() if name in holders or name == verifier else None
        world.add(name, learner=learner)
    for a, b in edges:
        world.link(a, b)
    for name in sorted(holders):
        world.hosts[name].hold("data/train", 100)
    if verifier:
        world.hosts[verifier].hold("data/test", 50)
    return world


def walker_for(
    world: World,
    home: str,
    *,
    layers: int = 6,
    floats: int = LAYER_FLOATS,
    reissue: str = "auto",
    copies: int = 2,
    nonce: bytes = bytes(16),
    **plan,
) -> Birth:
    rng = np.random.default_rng(7)
    objects = [
        (f"layer{i}", pack_layer({"w": rng.standard_normal(floats, dtype=np.float32)}))
        for i in range(layers)
    ]
    known = {"recipe": {"zoo": "none"}, "names": ("data/train",), "laps": 2}
    fields = {**known, "layers_per_stop": 2, "full_laps": 0, **plan}
    fields.setdefault("home", world.hosts[home].key.public_key)
    return bear(
        Plan(**fields),
        objects,
        SimKey(b"creator"),
        nonce=nonce,
        reissue=reissue,
        copies=copies,
    )


def inject(world: World, home: str, birth: Birth) -> None:
    host = world.hosts[home]
    for layer in birth.objects:
        host.disk.add(layer)
    world.happen(host, birth.event)


def reports(host: Host, kind: str) -> list[dict]:
    return [dict(r.fields) for _, r in host.reports if r.kind == kind]


def arrived(host: Host):
    return lambda: bool(reports(host, "arrived"))
