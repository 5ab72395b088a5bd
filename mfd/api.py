"""`mfd.run`: send a model of yours into a network of peers, and get it back trained.

The network is the simulator: the real protocol and its real bytes on a virtual clock, with real
training. The same seed gives the same layers, to the bit, on one type of machine.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mfd.core.ages import (
    GATE_KEY,
    MERGE_KEY,
    RULES,
    WALKERS_KEY,
    gate_of,
    rule_of,
    walkers_of,
)
from mfd.core.blocks import BASE_KEY
from mfd.core.walk import CHOOSE_KEY, POLICIES, policy_of
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, frozen_count, load, pack
from mfd.packet.plan import Plan
from mfd.sim.host import Host
from mfd.topology import Topology
from mfd.topology import load as load_topology
from mfd.topology import make as make_topology
from mfd.trial import Device, RunError, Trial

if TYPE_CHECKING:
    from torch import nn

    from mfd.core.effects import Report

__all__ = ["Run", "RunError", "run", "show"]

TRAIN, TEST, PUBLIC = "data/train", "data/test", "public"
KINDS = ("stop", "merged", "measured", "reissued")  # of the reports that make the history
Arrays = tuple[Any, Any]
DataFn = Callable[[int, int], Arrays]


@dataclass(frozen=True, slots=True)
class Run:
    """What came back."""

    model: nn.Module  # a trained copy; the module given is left as it was
    history: tuple[Mapping[str, Any], ...]  # one entry a stop and one a measurement, in order
    route: tuple[str, ...]  # node names in order of stops
    wire_bytes: int  # everything that crossed a link, each link counted
    seconds: float  # virtual time from start to home
    residents: Mapping[str, nn.Module] = field(default_factory=dict)  # by node, as taught


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
    follow: Callable[[Mapping[str, Any]], None] | None = None,
    **learn: str | float | bool,
) -> Run:
    """Train `model` by letting it travel; every node that holds data trains the layers it gets.

    `data(part, parts)` returns (x, y) of one holder: x (samples, ...) float or integer arrays, y
    (samples,) integer labels; of a language model both are tokens, y one later. A model of Hugging
    Face answers with its logits; of one with adapters (PEFT) those alone learn and travel, once
    the base is where they go. `topology` is a Topology, a graph file, or "kind:nodes" such as
    "ring:5". Where the topology names no holders, every node is one. `test` is (x, y) held at
    home, measured after each lap. `order`, `head`, `first`, `body` are a plan's; with
    `layers_per_stop` 0 the memory of each node decides. `walkers` above 1 travel at once and merge
    by `merge` and `gate`. With mode "distill" `residents`, models of nodes' own, learn from it and
    stay; all holders have `public` (x, y), labels unused. `follow`, such as `mfd.show`, is given
    each stop and measurement as it happens. All else goes to the trainer: epochs, ...
    Raises: ValueError, TypeError: arguments do not fit; RunError: nothing comes home.
    """
    holders = _holders(graph := _graph(topology))
    home = _home(graph, home or holders[0])
    shards = {name: _arrays(data(i, len(holders)), name) for i, name in enumerate(holders)}
    held = _holdings(shards, test, home)
    own = _residents(holders, residents), public, str(learn.get("choose", ""))
    blocks: dict[str, Any] = {"order": order, "head": head, "first": first, "body": body}
    trial = _followed(_trial(graph, held, model, own, (seed, samples_per_s)), follow)
    plan = Plan(
        recipe={"local": type(model).__qualname__},
        names=(TRAIN,),
        home=trial.world.hosts[home].key.public_key,
        mode=mode,
        task=_task(shards),
        verify=() if test is None else (TEST,),
        laps=laps,
        layers_per_stop=layers_per_stop,
        **blocks,
        full_laps=full_laps,
        min_holders=len(holders),
        seed=seed,
        extra=_extra(learn) | _base(model),
        learn=learn | ({} if public is None else {"public": PUBLIC}),
    )
    return _travel(trial, trial.world.hosts[home], plan, model)


def show(entry: Mapping[str, Any]) -> None:
    """Print one entry of a history in a line: a `follow` for those who watch."""
    match entry:
        case {"kind": "stop", "loss": loss}:
            who = f"{entry['clients']} peers" if "clients" in entry else entry["peer"]
            before = entry.get("loss_before", loss)
            told = f"{who}  layers {entry['layers']}  loss {before:.4f} -> {loss:.4f}"
        case {"kind": "measured", "accuracy": accuracy, "loss": loss}:
            told = f"accuracy {accuracy:.1%}, loss {loss:.4f}"
        case _:
            told = f"{entry['kind']} at {entry.get('peer', '-')}"
    lap = f"lap {entry['lap']}  " if "lap" in entry else ""
    print(f"    {entry['second']:7.2f} s  {lap}{told}", flush=True)


def _followed(trial: Trial, follow: Callable[[Mapping[str, Any]], None] | None) -> Trial:
    def tell(node: str, second: float, report: Report) -> None:
        if follow is not None and report.kind in KINDS:
            follow({"peer": node, **trial.plain(report), "kind": report.kind, "second": second})

    trial.on_news = tell
    return trial


def _trial(
    graph: Topology,
    held: Mapping[str, Mapping[str, Holding]],
    model: nn.Module,
    own: tuple[Mapping[str, nn.Module], Arrays | None, str],  # residents, public set, policy
    device: tuple[int, float],  # seed, samples a second
) -> Trial:
    return Trial(
        graph,
        held,
        seed=device[0],
        device=Device(device[1]),
        build=lambda _: copy.deepcopy(model),
        residents=own[0],
        common=_common(own[1]),
        choose=own[2],
    )


def _base(model: nn.Module) -> dict[int, Any]:
    count = frozen_count(find_layers(model))
    return {BASE_KEY: count} if count else {}


def _task(shards: Mapping[str, Arrays]) -> str:
    return "language" if next(iter(shards.values()))[1].ndim == 2 else "classification"


def _residents(
    holders: Sequence[str], residents: Mapping[str, nn.Module] | None
) -> Mapping[str, nn.Module]:
    for name in residents or {}:
        if name not in holders:
            raise ValueError(f"{name!r} has a resident and no data; holders: {', '.join(holders)}")
    return residents or {}


def _common(public: Arrays | None) -> dict[str, Holding]:
    if public is None:
        return {}
    x, y = _arrays(public, "the public set")
    return {PUBLIC: Holding(x, y, 1 + int(y.max()))}


def _extra(learn: dict[str, Any]) -> dict[int, Any]:
    """Take the plan's optional fields out. Raises: ValueError for what no peer would read."""
    walkers, gate = learn.pop("walkers", 1), learn.pop("gate", None)
    merge, choose = str(learn.pop("merge", "")), str(learn.pop("choose", ""))
    extra: dict[int, Any] = {WALKERS_KEY: walkers} if walkers != 1 else {}
    extra |= {MERGE_KEY: merge} if merge else {}
    extra |= {CHOOSE_KEY: choose} if choose else {}
    extra |= {GATE_KEY: gate} if gate is not None else {}
    plan = Plan({}, (TRAIN,), bytes(32), extra=extra)
    if walkers_of(plan) != walkers:
        raise ValueError(f"walkers is {walkers}: a number from 1 to 64")
    if merge and rule_of(plan).name != merge.partition(":")[0]:
        raise ValueError(f"merge is {merge!r}: one of {', '.join(RULES)}, or such as near:0.3")
    if choose and policy_of(plan) != choose:
        raise ValueError(f"choose is {choose!r}: one of {', '.join(POLICIES)}")
    if gate_of(plan) != gate:
        raise ValueError(f"gate is {gate!r}: a number from 0")
    return extra


def _graph(topology: Topology | str | Path) -> Topology:
    if isinstance(topology, Topology):
        return topology
    kind, _, count = str(topology).partition(":")
    if count.isdigit():
        return make_topology(kind, int(count))
    return load_topology(topology)


def _home(graph: Topology, name: str) -> str:
    if name not in graph.nodes:
        names = ", ".join(graph.nodes)
        raise ValueError(f"home {name!r} is not a node of the topology; nodes: {names}")
    return name


def _holders(graph: Topology) -> list[str]:
    """Nodes that hold anything; all of them where the topology does not say."""
    return [n for n, node in graph.nodes.items() if node.hold] or list(graph.nodes)


def _holdings(
    shards: Mapping[str, Arrays], test: Arrays | None, home: str
) -> dict[str, dict[str, Holding]]:
    held_out = None if test is None else _arrays(test, "test")
    labels = [y for _, y in (*shards.values(), *((held_out,) if held_out else ()))]
    classes = 1 + max(int(y.max()) for y in labels)
    held = {  # it is the caller's own, who may ask for replay
        name: {TRAIN: Holding(x, y, classes, tells=True)} for name, (x, y) in shards.items()
    }
    if held_out is not None:
        held.setdefault(home, {})[TEST] = Holding(*held_out, classes)
    return held


def _travel(trial: Trial, home: Host, plan: Plan, model: nn.Module) -> Run:
    layers = find_layers(model)
    walkers = trial.send(plan, [(layer.name, pack(model, layer)) for layer in layers])
    trial.bring_home(walkers)
    packet = trial.packet(plan)
    trained = copy.deepcopy(model)
    for layer, ref in zip(find_layers(trained), packet.manifest.layers, strict=True):
        load(trained, layer, packet.object(ref.digest))
    number = {walker.hex(): i for i, walker in enumerate(walkers, 1)} if walkers[1:] else {}
    history = tuple(
        {
            "kind": report.kind,
            "second": at / 1e6,
            **trial.plain(report),
            **({"walker": number.get(str(report.fields.get("walker")), 0)} if number else {}),
        }
        for at, report in home.reports
        if report.kind in KINDS
    )
    return Run(
        model=trained,
        history=history,
        route=tuple(entry["peer"] for entry in history if entry["kind"] == "stop"),
        wire_bytes=trial.tally.links_bytes,
        seconds=trial.world.now_us / 1e6,
        residents=trial.taught(),
    )


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
