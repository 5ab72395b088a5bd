"""`mfd.run`: send a model of yours into a network of peers, and get it back trained.

The network is the simulator: the real protocol and its real bytes on a virtual clock, with real
training. The same seed gives the same layers, to the bit, on one type of machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfd.core.birth import bear
from mfd.core.blocks import BASE_KEY
from mfd.core.effects import Report
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, frozen_count, load, pack
from mfd.learn.learner import Learner
from mfd.packet.objects import Buffer, LayerObject
from mfd.packet.plan import Plan
from mfd.packet.task import LearnResult, LearnTask
from mfd.sim.keys import SimKey
from mfd.sim.world import Host, World
from mfd.topology import Topology
from mfd.topology import load as load_topology
from mfd.topology import make as make_topology

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Run", "RunError", "run"]

TRAIN, TEST, PUBLIC = "data/train", "data/test", "public"
LINK_LATENCY_US = 1_000  # where the topology does not say
LINK_BYTES_PER_S = 125e6
QUIET_SECONDS = 300.0  # virtual; longer than any timer that could still move a walker
FAILED = "learning failed"
OF_MACHINE = ("peak_bytes", "taken_bytes")  # claims that tell of this machine, not of the device
Arrays = tuple[Any, Any]
DataFn = Callable[[int, int], Arrays]


class RunError(RuntimeError):
    """The walker did not come home; the sentence says what it was waiting for."""


@dataclass(frozen=True, slots=True)
class Run:
    """What came back."""

    model: nn.Module  # a trained copy; the module given is left as it was
    history: tuple[Mapping[str, Any], ...]  # one entry a stop and one a measurement, in order
    route: tuple[str, ...]  # node names in order of stops
    wire_bytes: int  # everything that crossed a link, each link counted
    seconds: float  # virtual time from start to home
    residents: Mapping[str, nn.Module] = field(default_factory=dict)  # by node, as taught


class _Device:
    """A learner whose time is that of a stated device, not of this machine."""

    def __init__(self, learner: Learner, samples_per_s: float) -> None:
        self._learner = learner
        self._samples_per_s = samples_per_s

    def perform(
        self,
        task: LearnTask,
        read: Callable[[bytes], Buffer],
        write: Callable[[LayerObject], None],
    ) -> LearnResult:
        """Learn for real; claim virtual seconds."""
        result = self._learner.perform(task, read, write)
        claims = {k: v for k, v in result.claims.items() if k not in OF_MACHINE}
        claims["seconds"] = claims.get("samples", 0.0) / self._samples_per_s
        return LearnResult(result.layers, claims)


def run(
    model: nn.Module,
    data: DataFn,
    *,
    topology: Topology | str | Path = "ring:5",
    mode: str = "snake",
    test: Arrays | None = None,
    laps: int = 6,
    seed: int = 0,
    layers_per_stop: int = 3,
    full_laps: int = 1,
    order: str = "lap",
    head: bool = True,
    first: bool = False,
    body: tuple[int, int] | None = None,
    home: str = "",
    samples_per_s: float = 10_000.0,
    residents: Mapping[str, nn.Module] | None = None,
    public: Arrays | None = None,
    **learn: str | float | bool,
) -> Run:
    """Train `model` by letting it travel; every node that holds data trains the layers it gets.

    `data(part, parts)` returns (x, y) of one holder: x (samples, ...) float or integer arrays, y
    (samples,) integer labels; of a language model both are tokens, y one later. A model of Hugging
    Face answers with its logits; of one with adapters (PEFT) those alone learn and travel, once
    the base is where they go. `topology` is a Topology, a graph file, or "kind:nodes" such as
    "ring:5". Where the topology names no holders, every node is one. `test` is (x, y) held at
    home, measured after each lap. `order`, `head`, `first` and `body` are those of a plan;
    `layers_per_stop` 0 leaves the size of a block to the memory that the topology gives each node.
    `learn` goes to the trainer: epochs, batch, lr, distill, ... With mode "distill" `residents`,
    models of nodes' own, learn from it and stay; `public` (x, y), labels unused, all holders have.
    Raises: ValueError or TypeError for what does not fit; RunError where it does not come home.
    """
    holders, own = _holders(graph := _graph(topology)), residents or {}
    _check_names(graph, holders, home := home or holders[0], own)
    shards = {name: _arrays(data(i, len(holders)), name) for i, name in enumerate(holders)}
    held = _holdings(shards, test and _arrays(test, "test"), home)
    learners = _learners(graph, held, lambda: copy.deepcopy(model), own, public)
    _build(world := World(seed), graph, held, learners, samples_per_s)
    plan = Plan(
        recipe={"local": type(model).__qualname__},
        names=(TRAIN,),
        home=world.hosts[home].key.public_key,
        mode=mode,
        task=_task(shards),
        verify=() if test is None else (TEST,),
        laps=laps,
        order=order,
        layers_per_stop=layers_per_stop,
        head=head,
        first=first,
        body=body,
        full_laps=full_laps,
        min_holders=len(holders),
        seed=seed,
        learn=learn | ({} if public is None else {"public": PUBLIC}),
        extra=_base(model),
    )
    return replace(_travel(world, world.hosts[home], plan, model), residents=_taught(learners, own))


def _base(model: nn.Module) -> dict[int, Any]:
    count = frozen_count(find_layers(model))
    return {BASE_KEY: count} if count else {}


def _task(shards: Mapping[str, Arrays]) -> str:
    return "language" if next(iter(shards.values()))[1].ndim == 2 else "classification"


def _check_names(
    graph: Topology, holders: Sequence[str], home: str, residents: Mapping[str, nn.Module]
) -> None:
    if home not in graph.nodes:
        names = ", ".join(graph.nodes)
        raise ValueError(f"home {home!r} is not a node of the topology; nodes: {names}")
    for name in residents:
        if name not in holders:
            raise ValueError(f"{name!r} has a resident and no data; holders: {', '.join(holders)}")


def _taught(
    learners: Mapping[str, Learner], residents: Mapping[str, nn.Module]
) -> dict[str, nn.Module]:
    """Copies of the residents as they are now."""
    own = {name: learners[name].resident for name in residents}
    return {name: copy.deepcopy(one.module) for name, one in own.items() if one is not None}


def _graph(topology: Topology | str | Path) -> Topology:
    if isinstance(topology, Topology):
        return topology
    kind, _, count = str(topology).partition(":")
    if count.isdigit():
        return make_topology(kind, int(count))
    return load_topology(topology)


def _holders(graph: Topology) -> list[str]:
    """Nodes that hold anything; all of them where the topology does not say."""
    return [n for n, node in graph.nodes.items() if node.hold] or list(graph.nodes)


def _holdings(
    shards: Mapping[str, Arrays], held_out: Arrays | None, home: str
) -> dict[str, dict[str, Holding]]:
    labels = [y for _, y in (*shards.values(), *((held_out,) if held_out else ()))]
    classes = 1 + max(int(y.max()) for y in labels)
    held = {name: {TRAIN: Holding(x, y, classes)} for name, (x, y) in shards.items()}
    if held_out is not None:
        held.setdefault(home, {})[TEST] = Holding(*held_out, classes)
    return held


def _learners(
    graph: Topology,
    held: Mapping[str, Mapping[str, Holding]],
    fresh: Callable[[], nn.Module],
    residents: Mapping[str, nn.Module],
    public: Arrays | None,
) -> dict[str, Learner]:
    """A learner for each node. The public set is known to those that hold data, not announced."""
    common: dict[str, Holding] = {}
    if public is not None:
        x, y = _arrays(public, "the public set")
        common[PUBLIC] = Holding(x, y, 1 + int(y.max()))
    return {
        name: Learner(
            {**held.get(name, {}), **(common if name in held else {})},
            build=lambda _: fresh(),
            threads=1,
            memory=graph.nodes[name].memory_bytes,
            resident=residents.get(name),
        )
        for name in graph.nodes
    }


def _build(
    world: World,
    graph: Topology,
    held: Mapping[str, Mapping[str, Holding]],
    learners: Mapping[str, Learner],
    samples_per_s: float,
) -> None:
    for name in graph.nodes:
        host = world.add(name, learner=_Device(learners[name], samples_per_s))
        for data_name, holding in held.get(name, {}).items():
            host.hold(data_name, len(holding.x))
    for edge in graph.edges:
        rate = edge.bandwidth_bps / 8 if edge.bandwidth_bps else LINK_BYTES_PER_S
        latency_us = edge.latency_us or LINK_LATENCY_US
        world.link(edge.a, edge.b, latency_us=latency_us, bytes_per_s=rate)


def _travel(world: World, home: Host, plan: Plan, model: nn.Module) -> Run:
    layers = find_layers(model)
    user = SimKey(b"user")
    nonce = plan.seed.to_bytes(16, "little")
    birth = bear(plan, [(layer.name, pack(model, layer)) for layer in layers], user, nonce=nonce)
    for made in birth.objects:
        home.disk.add(made)
    world.happen(home, birth.event)

    _bring_home(world, home)
    assert home.peer is not None
    version = home.peer.version(birth.walker)
    assert version is not None
    trained = copy.deepcopy(model)
    for layer, ref in zip(find_layers(trained), version.manifest.layers, strict=True):
        load(trained, layer, home.disk.read(ref.digest))
    by_id = {host.key.public_key.hex(): name for name, host in world.hosts.items()}
    history = tuple(
        {"kind": r.kind, "second": at / 1e6, **_named(r.fields, by_id)}
        for at, r in home.reports
        if r.kind in ("stop", "measured", "reissued")
    )
    return Run(
        model=trained,
        history=history,
        route=tuple(entry["peer"] for entry in history if entry["kind"] == "stop"),
        wire_bytes=sum(sum(h.sent_bytes.values()) for h in world.hosts.values()),
        seconds=world.now_us / 1e6,
    )


def _bring_home(world: World, home: Host) -> None:
    """Let time pass until the walker is home. Raises: RunError once nothing moves any more."""

    def of(kind: str) -> list[tuple[Host, Report]]:
        return [(h, r) for h in world.hosts.values() for _, r in h.reports if r.kind == kind]

    def over() -> bool:
        return bool(home.reports and home.reports[-1][1].kind == "arrived") or broken()

    def broken() -> bool:
        return any(h.reports and h.reports[-1][1].kind == FAILED for h in world.hosts.values())

    told = -1
    while not world.run(until=over, seconds=QUIET_SECONDS):
        count = sum(len(h.reports) for h in world.hosts.values())
        walkers = [w for h in world.hosts.values() if h.peer for w in h.peer.status().walkers]
        learning = any(w.activity.startswith("training") for w in walkers)
        if count == told and not learning:
            states = sorted({w.activity for w in walkers if w.role == "own"})
            raise RunError(f"the walker did not come home; it is {' and '.join(states)}")
        told = count
    if broken():
        host, report = of(FAILED)[0]
        raise RunError(f"{host.name} could not learn: {report.fields['reason']!s}")


def _named(fields: Mapping[str, Any], by_id: Mapping[str, str]) -> dict[str, Any]:
    plain = {k: v for k, v in fields.items() if k != "walker"}
    return {k: by_id.get(v, v) if isinstance(v, str) else v for k, v in plain.items()}


def _arrays(pair: Arrays, where: str) -> tuple[Any, Any]:
    try:
        x, y = (np.asarray(part) for part in pair)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the data of {where} must be a pair (x, y) of arrays") from error
    if len(x) != len(y) or not len(x):
        raise ValueError(f"the data of {where} has {len(x)} samples and {len(y)} labels")
    if y.dtype.kind not in "iu":
        raise TypeError(f"the labels of {where} are {y.dtype}; integers are needed")
    return (x.astype(np.float32) if x.dtype.kind == "f" else x), y.astype(np.int64)
