"""A scenario: which network, which faults, which walkers, from which seed; and the world it makes.

Rules of this file: a scenario is a value that can be written down and read back; the same scenario
makes the same world.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from mfd.core.ages import WALKERS_KEY
from mfd.core.birth import Birth, bear
from mfd.core.config import Config
from mfd.packet.chunks import Encoding
from mfd.packet.objects import pack_layer
from mfd.packet.plan import Plan
from mfd.sim.chance import Streams
from mfd.sim.faults import Faults
from mfd.sim.host import Host
from mfd.sim.keys import Signatures
from mfd.sim.liars import HABITS, Liar
from mfd.sim.standin import StandIn
from mfd.sim.terms import Terms
from mfd.sim.trouble import Trouble
from mfd.sim.world import World
from mfd.topology import Topology

__all__ = ["DATA", "SWARM_CONFIG", "Scenario", "Stage", "stage"]

DATA = "data/train"
SECOND_US = 1_000_000
CONTACTS = 2  # hosts at which all others join an open network
LATENCY_US = 2_000  # of an edge that names none
BYTES_PER_S = 125e6
LAYER_FLOATS = 64
NEVER_US = 1 << 60
HOLDERS_SHARE = 0.3  # where the graph names no holders
HOLDERS_MAX = 24  # then: a lap of more takes longer than most calms

SWARM_CONFIG: dict[str, Any] = {  # shorter than the defaults, so that more happens in a minute
    "lease_us": 8 * SECOND_US,
    "offer_us": 3 * SECOND_US,
    "stalled_us": 6 * SECOND_US,
    "opening_us": 4 * SECOND_US,
    "failed_holder_us": 5 * SECOND_US,
    "redial_max_us": 4 * SECOND_US,
    "seqno_lazy_us": 8 * SECOND_US,
    "held_query_us": 30 * SECOND_US,
    "dial_max_us": 8 * SECOND_US,
    "shuffle_us": 10 * SECOND_US,
}


@dataclass(frozen=True, slots=True)
class Scenario:
    """Everything that decides what happens. Times are of the virtual clock."""

    topology: Topology
    seed: int = 0
    faults: Faults = field(default_factory=Faults)
    seconds: float = 60.0  # of trouble
    calm: float = 120.0  # at most, after it: time to come home
    walkers: int = 1
    siblings: int = 1  # so many walkers of each plan, which merge where they meet
    training: float = 0.5  # seconds of a stop
    layers: int = 3
    laps: int = 1
    holders: int = 0  # where the graph names none: so many; 0: a third, 2 to 24
    copies: int = 2
    reissue: str = "auto"
    real_signatures: bool = False
    part: bool = False  # only a part of the peers is healed
    planes: bool = False  # objects travel compressed; raw chunks cost the simulator half the time
    open: bool = False  # peers choose their neighbours; the graph gives names and data alone
    members: bool = False  # owners name an issuer, whose token all hosts have but ...
    strangers: int = 0  # ... so many that hold data, and announce it all the same
    revoked: int = 0  # so many members' tokens are called back half-way through the trouble
    small: int = 0  # so many holders take no model as a whole
    heartbeats: bool = True  # False: abstracted, for large worlds; see wires.py
    config: Mapping[str, Any] = field(default_factory=dict)  # fields of Config that differ
    warm: float = 2.0  # seconds before the trouble


@dataclass(slots=True)
class Stage:
    """A world ready to run, and what the checkers must know of it."""

    world: World
    trouble: Trouble
    births: dict[bytes, str]  # walker -> home
    holders: list[str]


def stage(scenario: Scenario) -> Stage:
    """Build the world of a scenario; nothing has happened in it yet."""
    config = replace(Config(**dict(scenario.config)), open_network=scenario.open)
    detect_us = (config.down_us - config.heartbeat_us, config.down_us + config.heartbeat_us)
    if not scenario.heartbeats:
        config = replace(config, heartbeat_us=NEVER_US, down_us=NEVER_US)
    signatures = Signatures(real=scenario.real_signatures)
    world = World(scenario.seed, config, signatures=signatures)
    world.wires.detect_us = None if scenario.heartbeats else detect_us
    streams = Streams(scenario.seed)
    holdings = _holdings(scenario, streams)
    liars = _liars(scenario, streams, holdings)
    terms = Terms(scenario, config, signatures, holdings)
    for name in scenario.topology.nodes:
        held = holdings.get(name, {DATA: 100} if name in terms.strangers else {})
        learner = StandIn(seconds=scenario.training) if held else None
        host = world.add(name, learner=learner, config=terms.config(name), on=False)
        host.holdings = dict(held)
        host.disk.encoding = Encoding.PLANES if scenario.planes else Encoding.RAW
        if name in liars:
            habits = liars[name]
            host.wrap = partial(_wrapped, habits, streams)
    rate = scenario.faults.bandwidth_bps / 8
    for edge in scenario.topology.edges if not scenario.open else ():
        world.wire(
            edge.a,
            edge.b,
            latency_us=edge.latency_us or LATENCY_US,
            bytes_per_s=rate or edge.bandwidth_bps / 8 or BYTES_PER_S,
        )
    if scenario.open:
        hosts = list(world.hosts.values())
        contacts = [world.address(host) for host in hosts[:CONTACTS]]
        for host in hosts:
            world.address(host)
            host.joins += [line for line in contacts if line not in host.addresses]
    trouble = Trouble(world, scenario.faults, streams)
    trouble.liars.update(liars)
    for host in world.hosts.values():
        world.start(host)
    terms.begin(world)
    births = _births(scenario, world, [n for n in holdings if n not in liars], streams)
    return Stage(world, trouble, births, list(holdings))


def _holdings(scenario: Scenario, streams: Streams) -> dict[str, dict[str, int]]:
    nodes = scenario.topology.nodes
    given = {name: dict.fromkeys(node.hold, 100) for name, node in nodes.items() if node.hold}
    if given:
        return given
    count = scenario.holders or min(max(2, round(len(nodes) * HOLDERS_SHARE)), HOLDERS_MAX)
    count = min(count, len(nodes))
    chosen = set(streams.of("holders").sample(list(nodes), count))
    return {name: {DATA: 100} for name in nodes if name in chosen}


def _liars(
    scenario: Scenario, streams: Streams, holdings: Mapping[str, object]
) -> dict[str, tuple[str, ...]]:
    """Who lies, and how; a holder stays honest wherever else none would."""
    if not scenario.faults.liars:
        return {}
    chance = streams.of("liars")
    names = list(scenario.topology.nodes)
    told = scenario.faults.liars  # a share, or how many
    count = int(told) if told >= 1 else max(1, round(len(names) * told))
    chosen = chance.sample(names, min(count, len(names)))
    honest = [name for name in holdings if name not in chosen]
    spared = set() if len(honest) >= 2 else set(holdings)
    return {
        name: tuple(chance.sample(HABITS, chance.between(1, 2)))
        for name in chosen
        if name not in spared
    }


def _wrapped(habits: tuple[str, ...], streams: Streams, host: Host, peer: Any) -> Any:
    return Liar(host, peer, streams.of("liar", host.name, str(host.life)), habits)


def _births(
    scenario: Scenario, world: World, homes: list[str], streams: Streams
) -> dict[bytes, str]:
    chance = streams.of("walkers")
    births = {}
    names = tuple(sorted({name for host in world.hosts.values() for name in host.holdings}))
    for number in range(scenario.walkers if homes else 0):
        home = chance.pick(homes)
        for sibling in range(scenario.siblings):
            birth = _bear(scenario, world.hosts[home], names[:8], (number, sibling), world)
            births[birth.walker] = home
            when_us = 500_000 + chance.below(int(scenario.warm * 1e6))
            world.at(when_us, partial(_inject, world, world.hosts[home], birth))
    return births


def _bear(
    scenario: Scenario, home: Host, names: tuple[str, ...], which: tuple[int, int], world: World
) -> Birth:
    number, sibling = which
    rng = np.random.default_rng([scenario.seed, number])
    layers = [
        (f"layer{i}", pack_layer({"w": rng.standard_normal(LAYER_FLOATS, dtype=np.float32)}))
        for i in range(scenario.layers)
    ]
    plan = Plan(
        recipe={"zoo": "none"},
        names=names,
        home=home.key.public_key,
        laps=scenario.laps,
        layers_per_stop=2,
        full_laps=0,
        extra={WALKERS_KEY: scenario.siblings} if scenario.siblings > 1 else {},
    )
    creator = world.signatures.key(b"creator")
    nonce = (number | sibling << 64).to_bytes(16, "little")
    return bear(
        plan, layers, creator, nonce=nonce, copies=scenario.copies, reissue=scenario.reissue
    )


def _inject(world: World, host: Host, birth: Birth) -> None:
    if host.peer is None:
        world.at(world.now_us + SECOND_US, partial(_inject, world, host, birth))
        return
    for layer in birth.objects:
        host.disk.add(layer)
    world.happen(host, birth.event)
