"""Holders that take only parts: half a model goes there on an errand and comes back, trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="parts are cut and trained for real")

from mfd.cli.view import hop_line
from mfd.core import parts
from mfd.core.birth import bear
from mfd.core.config import Config
from mfd.core.custody import Version
from mfd.core.tasks import has_scale, why_no_child
from mfd.learn import zoo
from mfd.learn.axes import axes_of
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, pack
from mfd.learn.learner import Learner
from mfd.packet.extent import Scale
from mfd.packet.objects import pack_layer, unpack_layer
from mfd.packet.plan import Plan
from mfd.packet.scales import SCALES_KEY, plain_scales
from mfd.packet.scaling import Axes, scale
from mfd.packet.task import LayerRef, LearnResult, LearnTask
from mfd.sim.checks import Custody
from mfd.sim.keys import SimKey
from mfd.sim.world import Host, World
from tests.sim.worlds import arrived, reports

RECIPE: dict[str, Any] = {"zoo": "mlp", "inputs": [16], "classes": 2, "hidden": [64, 64]}
HALF = Scale(0.5)
AXES = Axes.of(axes_of(RECIPE))
LAYERS = [(layer.name, pack((m := zoo.init(RECIPE, 1)), layer)) for layer in find_layers(
    zoo.init(RECIPE, 1))]  # fmt: skip
START = {name: unpack_layer(made.tobytes()) for name, made in LAYERS}
WHOLE = sum(made.raw_bytes for _, made in LAYERS)
SMALL = sum(pack_layer(tensors).raw_bytes for tensors in scale(START, HALF, AXES).values())
TRIANGLE = [("a", "b"), ("b", "c"), ("c", "a")]
LEASE_US = 4_000_000
Model = dict[str, np.ndarray[Any, Any]]


def holding(seed: int) -> Holding:
    x = np.random.default_rng(seed).standard_normal((32, 16)).astype(np.float32)
    return Holding(x, (x[:, 0] > 0).astype(np.int64), 2)


class Steady(Learner):
    """A learner that takes the same time whatever else its machine does: virtual seconds."""

    def perform(self, task: LearnTask, read: Any, write: Any, **more: Any) -> LearnResult:
        result = super().perform(task, read, write, **more)
        return replace(result, claims={**result.claims, "seconds": 0.25, "peak_bytes": 1.0})


def world_of(weak: str, holders: str = "abc", **config: int) -> World:
    """Three peers; those in `weak` take no more than half of the model."""
    times = {"lease_us": LEASE_US, "offer_us": 2_000_000, "errand_us": 5_000_000, **config}
    world = World(1)
    for i, name in enumerate("abc"):
        learner = Steady({"d": holding(i)} if name in holders else {}, threads=1)
        most = SMALL if name in weak else 0
        world.add(name, learner=learner, config=Config(whole_bytes_max=most, **times))
    for a, b in TRIANGLE:
        world.link(a, b)
    for name in holders:
        world.hosts[name].hold("d", 32)
    return world


def send(world: World, scales: tuple[Scale, ...] = (HALF,), **fields: Any) -> bytes:
    home = world.hosts["a"]
    values = {"mode": "walk", "laps": 1, "min_holders": len(holders_of(world)), **fields}
    extra = {SCALES_KEY: plain_scales(scales)} if scales else {}
    plan = Plan(RECIPE, ("d",), home.key.public_key, learn={"epochs": 1.0}, extra=extra, **values)
    birth = bear(plan, LAYERS, SimKey(b"user"), nonce=bytes(16), reissue="auto", copies=2)
    for made in birth.objects:
        home.disk.add(made)
    world.happen(home, birth.event)
    return birth.walker


def holders_of(world: World) -> list[Host]:
    return [host for host in world.hosts.values() if host.holdings]


def model_at(host: Host, walker: bytes) -> Model:
    refs = host.peer.version(walker).manifest.layers
    found = [unpack_layer(host.disk.read(ref.digest)) for ref in refs]
    return {name: t.array() for layer in found for name, t in layer.items()}


def kept(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Which coordinates of a tensor its half has."""
    if not AXES.cuts(name):
        return np.ones(values.shape, bool)
    places = np.arange(values.size, dtype=np.int32).reshape(values.shape)
    inside = np.zeros(values.size, bool)
    inside[scale({"x": {name: places}}, HALF, AXES)["x"][name].array().reshape(-1)] = True
    return inside.reshape(values.shape)


def start() -> Model:
    return {name: t.array() for layer in START.values() for name, t in layer.items()}


def came_in(world: World, name: str) -> Callable[[], int]:
    """Bytes of objects written at a host."""
    from mfd.core.effects import Keep

    sizes: list[int] = []

    def observe(host: Host, _: object, effects: list[object]) -> None:
        if host.name == name:
            sizes.extend(memoryview(e.body).nbytes for e in effects if type(e) is Keep)

    world.observers.append(observe)
    return lambda: sum(sizes)


def test_a_weak_holder_trains_half_and_the_rest_keeps_its_bits() -> None:
    """Custody stays at home, what travels is the half, and the trace tells who learned what.

    Rules: C-37, C-38, W-28
    """
    world = world_of("b", holders="b")
    custody = Custody(world)
    world.observers.append(custody)
    bytes_at_b = came_in(world, "b")
    walker = send(world, laps=2)
    home, weak = world.hosts["a"], world.hosts["b"]
    assert world.run(until=arrived(home), seconds=60)
    assert [w.role for w in weak.peer.status().walkers] == ["none"]
    assert not reports(home, "handed")
    assert bytes_at_b() < 1.05 * SMALL + 2_000 < WHOLE
    before, after = start(), model_at(home, walker)
    for name, values in before.items():
        inside = kept(name, values)
        assert after[name][~inside].tobytes() == values[~inside].tobytes(), name
    moved = sum(int((after[name] != values).sum()) for name, values in before.items())
    assert moved > 0.5 * sum(kept(name, values).sum() for name, values in before.items())
    manifest = home.peer.version(walker).manifest
    assert manifest.scale == Scale()
    assert (manifest.claims["width"], manifest.claims["depth"]) == (0.5, 0.0)
    assert manifest.claims["by"] == weak.key.public_key.hex()
    assert len(manifest.parents) == 2
    assert manifest.progress.stops == 2
    (first, _) = reports(home, "stop")
    assert first["by"] == weak.key.public_key.hex()
    line = hop_line({"kind": "stop", **first})
    assert line is not None
    assert line.startswith(f"{first['by'][:8]} for {home.key.public_key.hex()[:8]}  lap 1/2")
    assert line.endswith("trained as width 0.5")
    (part, _) = reports(home, "part")
    told = hop_line({"kind": "part", **part})
    assert told is not None
    assert told.endswith(f"it takes only parts, of {SMALL} bytes")


def test_the_walk_goes_on_from_holder_to_holder() -> None:
    """b and c take parts of it, a trains all; each of them once a lap. Rules: W-28"""
    world = world_of("bc")
    walker = send(world, laps=2)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    who = [s.get("by", s["peer"]) for s in reports(home, "stop")]
    ids = {host.key.public_key.hex(): name for name, host in world.hosts.items()}
    names = [ids[peer] for peer in who]
    assert sorted(names[:3]) == sorted(names[3:]) == ["a", "b", "c"]
    assert home.peer.version(walker).manifest.progress.stops == 6


def test_who_takes_parts_of_a_plan_without_scales_is_passed_over() -> None:
    """Rules: W-28"""
    for scales, why in (((), "the plan has none"), ((Scale(0.9),), "no scale of the plan takes")):
        world = world_of("b")
        walker = send(world, scales=scales)
        home = world.hosts["a"]
        assert world.run(until=arrived(home), seconds=120)
        told = [p["reason"] for h in world.hosts.values() for p in reports(h, "part")]
        assert any(reason.startswith("passed over") and why in reason for reason in told), told
        assert home.peer.version(walker).manifest.progress.stops == 2


def test_in_a_round_only_the_half_of_a_weak_client_counts() -> None:
    """Where the weak client has nothing, the model is that of the strong ones, to the bit.

    Rules: C-37, P-408, W-29
    """
    models = {}
    for weak, holders in (("", "ac"), ("b", "abc")):
        world = world_of(weak, holders)
        walker = send(world, mode="fedavg")
        home = world.hosts["a"]
        assert world.run(until=arrived(home), seconds=60)
        models[holders] = model_at(home, walker)
        (round_,) = reports(home, "stop")
        assert (round_["clients"], round_.get("parts")) == (len(holders), len(weak) or None)
    line = hop_line({"kind": "stop", **round_})
    assert line is not None
    assert line.startswith("3 clients, 1 of them a part")
    strong, both = models["ac"], models["abc"]
    moved = 0
    for name, values in strong.items():
        inside = kept(name, values)
        assert both[name][~inside].tobytes() == values[~inside].tobytes(), name
        moved += int((both[name] != values).sum())
    assert moved > 500


class Spoiled(Steady):
    """A learner whose numbers are not finite."""

    def perform(self, task: LearnTask, read: Any, write: Any, **more: Any) -> LearnResult:
        result = super().perform(task, read, write, **more)
        if task.kind != "train":
            return result
        made = []
        for ref in task.layers:
            tensors = unpack_layer(read(ref.digest))
            bad = pack_layer({k: np.full_like(t.array(), np.nan) for k, t in tensors.items()})
            write(bad)
            made.append(LayerRef(ref.index, ref.name, bad.digest, bad.raw_bytes))
        return replace(result, layers=tuple(made))


def test_what_comes_back_spoiled_is_not_used() -> None:
    """Rules: W-28"""
    world = world_of("b")
    world.hosts["b"].learner = Spoiled({"d": holding(1)}, threads=1)
    walker = send(world)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    told = [p["reason"] for h in world.hosts.values() for p in reports(h, "part")]
    assert "passed over: what came back cannot be used: a number in it is not finite" in told
    assert all(np.isfinite(values).all() for values in model_at(home, walker).values())


def test_a_scale_that_the_plan_does_not_allow_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: C-38"""
    world = world_of("b")
    monkeypatch.setattr(parts, "scale_told", lambda plan, claims: Scale(1 / 3))
    send(world)
    assert world.run(until=arrived(world.hosts["a"]), seconds=120)
    told = [p["reason"] for h in world.hosts.values() for p in reports(h, "part")]
    assert "passed over: the plan does not allow this scale of its model" in told
    plan = Plan(RECIPE, ("d",), bytes(32), extra={SCALES_KEY: plain_scales([HALF])})
    full = world.hosts["a"].peer.version(next(iter(world.hosts["a"].peer._walkers)).id)
    half = replace(full, manifest=replace(full.manifest, scale=HALF))
    train, measure = ("train", ((0, 1),), (0.0, 1.0)), ("measure", (), (0.0, 1.0))
    assert has_scale(plan, half, train)
    assert not has_scale(plan, half, measure)
    assert has_scale(plan, full, measure)


def test_a_result_may_change_what_it_was_given_alone() -> None:
    """Rules: C-27, C-38"""
    world = world_of("")
    walker = send(world)
    assert world.run(until=arrived(world.hosts["a"]), seconds=60)
    parent = world.hosts["a"].peer.version(walker)
    sender = b"s" * 32

    def why(**fields: Any) -> str | None:
        values: Mapping[str, Any] = {"trainer": sender, "parents": (parent.digest,), **fields}
        child = replace(parent.manifest, **{"trained": ((1, 2),), **values})
        return why_no_child(child, parent, sender, ((1, 3),))

    layers = parent.manifest.layers
    moved = [tuple(replace(r, digest=bytes(32)) if r.index == i else r for r in layers) for i in
             range(3)]  # fmt: skip
    assert why() is None
    assert why(layers=moved[1]) is None
    assert "does not name as trained" in str(why(layers=moved[0]))
    assert "does not name as trained" in str(why(layers=moved[2]))
    assert "was not given" in str(why(trained=((0, 2),)))
    assert "another scale" in str(why(scale=HALF))
    assert isinstance(parent, Version)


# crashes


def excursion() -> tuple[int, int]:
    """First and last event of the first excursion in the quiet world."""
    world = world_of("b")
    send(world)
    hosts = list(world.hosts.values())
    assert world.run(until=lambda: any(reports(h, "part") for h in hosts), seconds=60)
    first = world.events
    by = lambda: any("by" in s for h in hosts for s in reports(h, "stop"))  # noqa: E731
    assert world.run(until=by, seconds=60)
    return first, world.events


FIRST, LAST = excursion()


@pytest.mark.parametrize("comes_back", [True, False])
@pytest.mark.parametrize("victim", ["owner", "b"])
@pytest.mark.parametrize("part", range(8))
def test_a_crash_of_either_side_loses_nothing(victim: str, part: int, comes_back: bool) -> None:
    """Rules: C-30, C-31, C-38"""
    at = FIRST + (LAST - FIRST) * part // 8
    killed: list[str] = []

    def watch(host: Host, event: object, effects: object) -> None:
        if world.events == at and not killed:
            owner = next(h for h in world.hosts.values() if reports(h, "part"))
            gone = owner if victim == "owner" else world.hosts[victim]
            killed.append(gone.name)
            world.kill(gone)
            if comes_back or gone.name == "a":
                world.at(world.now_us + 500_000, lambda: world.start(gone))
            else:
                custody.lost.add(gone.name)

    world = world_of("b", failed_holder_us=6_000_000)
    custody = Custody(world)
    world.observers += [custody, watch]
    walker = send(world)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=300), (killed, home.reports[-3:])
    assert killed
    manifest = home.peer.version(walker).manifest
    assert manifest.scale == Scale()
    assert [(r.name, r.raw_bytes) for r in manifest.layers] == [
        (name, made.raw_bytes) for name, made in LAYERS
    ]
    assert all(np.isfinite(values).all() for values in model_at(home, walker).values())
    assert manifest.progress.stops >= 2


def test_a_part_that_does_not_fit_its_memory_either_is_told() -> None:
    """Rules: C-38, W-28"""
    world = world_of("b")
    world.hosts["b"].learner = Steady({"d": holding(1)}, threads=1, memory=1_000)
    walker = send(world)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    (failed,) = reports(world.hosts["b"], "learning failed")
    assert failed["walker"] == walker.hex()
    told = [p["reason"] for h in world.hosts.values() for p in reports(h, "part")]
    assert any(r.startswith("passed over: training fc1") and "allows 1000 bytes" in r for r in told)
