"""A journey in the simulator: what is counted, and how long it takes on a stated device."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="journeys train for real")

from mfd.core.ages import WALKERS_KEY
from mfd.core.walk import CHOOSE_KEY
from mfd.learn import zoo
from mfd.learn.devices import Flop
from mfd.learn.flops import exit_flops, forward_flops, part_bytes, part_costs
from mfd.learn.holdings import Holding
from mfd.learn.layers import find_layers, pack, pack_model
from mfd.learn.memory import need_of
from mfd.learn.options import Options
from mfd.packet.extent import Scale
from mfd.packet.manifest import verify_manifest
from mfd.packet.plan import Plan, decode_plan
from mfd.packet.scales import SCALES_KEY, plain_scales
from mfd.packet.signing import KEY_BYTES, SIGNATURE_BYTES
from mfd.packet.task import LayerRef, LearnTask
from mfd.sim.keys import real_verify
from mfd.topology import Topology, make
from mfd.trial import Costs, Device, Lesson, RunError, Trial, Work, state_bytes

RECIPE = {"zoo": "mlp", "inputs": [4], "classes": 2, "hidden": [8, 8]}


def holding(seed: int, samples: int = 64) -> Holding:
    x = np.random.default_rng(seed).standard_normal((samples, 4)).astype(np.float32)
    return Holding(x, (x[:, 0] > 0).astype(np.int64), 2)


def trial_of(graph: Topology, **options: object) -> Trial:
    held = {name: {"data/train": holding(i)} for i, name in enumerate(graph.nodes)}
    return Trial(graph, held, seed=1, **options)  # type: ignore[arg-type]


def plan_for(trial: Trial, **fields: object) -> Plan:
    home = trial.world.hosts["peer1"].key.public_key
    learn = {"epochs": 1.0}
    values = {"mode": "walk", "laps": 2, "min_holders": 3, "learn": learn, **fields}
    return Plan(RECIPE, ("data/train",), home, **values)  # type: ignore[arg-type]


def layers() -> list[tuple[str, object]]:
    module = zoo.init(RECIPE, 1)
    return [(layer.name, pack(module, layer)) for layer in find_layers(module)]


def travel(trial: Trial, plan: Plan) -> list[Work]:
    works: list[Work] = []
    trial.on_work = works.append
    trial.bring_home(trial.send(plan, layers()))  # type: ignore[arg-type]
    return works


def test_bytes_are_those_of_the_wires_and_of_the_custodians() -> None:
    """On a line the ends' objects cross two links, and are counted once."""
    trial = trial_of(make("line", 3))
    works = travel(trial, plan_for(trial))
    tally = trial.tally
    sent = sum(sum(host.sent_bytes.values()) for host in trial.world.hosts.values())
    assert tally.links_bytes == sent == sum(tally.by_link.values())
    assert 0 < tally.objects_bytes == sum(tally.received.values()) < tally.links_bytes
    training = [work for work in works if work.kind == "train"]
    assert len(training) == tally.stops == 6
    assert sum(work.samples for work in training) == tally.samples == 6 * 64
    assert [work.peer for work in training[:3]] == ["peer1", "peer2", "peer3"]


@pytest.mark.parametrize(
    ("choose", "words"),
    [("labels", "its labels complement those seen"), ("capacity", "the most capacity, 3,000,")],
)
def test_holders_announce_what_the_plan_chooses_by(choose: str, words: str) -> None:
    """Nobody's labels or capacity known, such a plan would go to the nearest and not say so."""
    graph = make("line", 3)
    nodes = {**graph.nodes, "peer3": replace(graph.nodes["peer3"], speed=3.0)}
    graph = replace(graph, nodes=nodes)
    trial = trial_of(graph, choose=choose)
    told: list[tuple[str, str]] = []
    trial.on_news = lambda node, second, report: (
        told.append((node, str(report.fields["reason"]))) if report.kind == "chosen" else None
    )
    travel(trial, plan_for(trial, laps=1, extra={CHOOSE_KEY: choose}))
    assert any(words in why for _, why in told), told


def test_what_came_home_is_signed_and_whole() -> None:
    trial = trial_of(make("line", 3), real_keys=True)
    plan = plan_for(trial)
    travel(trial, plan)
    packet = trial.packet(plan)
    packet.check()
    record = bytes(packet.object(packet.manifest.plan))  # so that it tells its own model
    assert decode_plan(record[KEY_BYTES + SIGNATURE_BYTES :]) == plan
    verify_manifest(packet.manifest_bytes, packet.signature, real_verify)
    assert packet.manifest.progress.lap == 2


def test_several_walkers_all_come_home() -> None:
    trial = trial_of(make("line", 3))
    works = travel(trial, plan_for(trial, laps=1, extra={WALKERS_KEY: 2}))
    assert sum(work.kind == "train" for work in works) == 6


def test_a_slow_node_and_a_slow_device_take_their_time() -> None:
    graph = make("line", 3)
    nodes = {**graph.nodes, "peer2": replace(graph.nodes["peer2"], speed=0.25)}
    trial = trial_of(replace(graph, nodes=nodes), device=Device(samples_per_s=32.0))
    works = [work for work in travel(trial, plan_for(trial, laps=1)) if work.kind == "train"]
    assert {work.peer: work.seconds for work in works} == {"peer1": 2, "peer2": 8, "peer3": 2}
    assert trial.world.now_us > 12e6


def test_work_is_counted_from_the_first_trained_layer_on() -> None:
    costs = Costs((100.0, 10.0, 1.0))
    device = Device(flops=1.0, costs=costs)
    task = LearnTask("train", b"", ())
    assert device.seconds(task, ((0, 3),), 5, held=2) == 3 * 5 * 111
    assert device.seconds(task, ((2, 3),), 5, held=2) == 2 * 110 + 3 * 5 * 1
    assert device.seconds(replace(task, kind="measure"), (), 5, held=5) == 5 * 111
    assert device.seconds(replace(task, kind="merge"), (), 5, held=5) == 0


def test_early_exits_and_the_received_model_count_where_they_answer() -> None:
    """In training alone, from the first trained layer on; the received model once a sample."""
    costs = Costs((100.0, 10.0, 1.0), exits=(5.0, 2.0, 0.0), opinion=True)
    assert costs.training(((1, 3),), samples=5, kept=2) == 2 * 111 + 3 * 5 * (11 + 2)
    assert costs.measuring(5) == 5 * 111
    replay = replace(costs, draws=0.5, opinion=False)
    assert replay.training(((1, 3),), samples=6, kept=2) == 2 * 100 + 3 * 9 * 13 + 3 * 100
    recipe = {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 4, "exits": True}
    image = Holding(np.zeros((2, 1, 8, 8), np.float32), np.zeros(2, np.int64), 10)
    # means over 3 x 3 fields of 4, 8, 8 channels, then a product; the last one answers anyway
    assert exit_flops(zoo.build(recipe), image) == (2 * 360, 2 * 720, 2 * 720, 0)
    half = Scale(0.5, 3)
    part = part_costs({**recipe, "norm": "fours"}, [half], image)[half]
    assert [flop.exit for flop in part.values()] == [2 * 180, 2 * 360, 0]
    assert replace(replay, parts={half: part}).of(half, list(part)).draws == replay.draws


def test_a_lesson_is_the_work_of_both() -> None:
    own = Costs((7.0, 3.0), exits=(1.0, 0.0))
    proxy = Costs((20.0,), opinion=True)
    lesson = Lesson("proxy", {"a": own}, public=50, answered=True)
    task = LearnTask("train", b"", ())

    def seconds(costs: Costs, peer: str) -> float:
        device = Device(flops=1.0, costs=costs)
        return device.seconds(task, ((0, 1),), 5, held=2, peer=peer)

    with_both = 3 * 11 + 10 + 3 * 10 + 3 * 20 + 20 + 3 * 20 + 20
    assert seconds(replace(proxy, lesson=lesson), "a") == 5 * with_both
    assert seconds(replace(proxy, lesson=lesson), "b") == 5 * (3 * 20 + 20)  # no resident there
    table = Costs((0.0,), lesson=replace(lesson, share="logits"))
    assert seconds(table, "a") == 5 * (3 * 11 + 3 * 10) + 50 * 10
    table = Costs((0.0,), lesson=replace(lesson, share="prototypes"))
    assert seconds(table, "a") == 5 * 3 * 11 + 2 * 10


def test_work_on_a_smaller_version_is_that_of_the_version() -> None:
    half, shallow = Scale(0.5), Scale(1, 1)
    names = ("a", "b", "c")
    halves = {"a": Flop(50.0), "b": Flop(3.0), "c": Flop(1.0)}
    costs = Costs((100.0, 10.0, 1.0), {half: halves, shallow: {"a": Flop(9.0)}})
    device = Device(flops=1.0, costs=costs)
    task = LearnTask("train", b"", tuple(LayerRef(i, n, bytes(32), 8) for i, n in enumerate(names)))
    assert device.seconds(task, ((1, 3),), 5, held=2, by=half) == 2 * 50 + 3 * 5 * 4
    assert device.seconds(task, ((0, 1),), 5, held=2, by=shallow) == 3 * 5 * 9
    # layers of a version that came cut are counted anew
    cut = replace(task, layers=task.layers[:1], scale=shallow)
    assert device.seconds(cut, ((0, 1),), 5, held=2, by=shallow) == 3 * 5 * 9
    # with all layers of the full model the half learns along
    assert device.seconds(task, ((0, 3),), 5, held=2) == 3 * 5 * (111 + 54)
    assert device.seconds(task, ((1, 3),), 5, held=2) == 2 * 100 + 3 * 5 * 11


def test_a_stop_is_counted_as_the_version_that_was_trained() -> None:
    """By the memory of its node, or since it takes only parts."""
    half = Scale(0.5)
    graph = make("line", 3)
    sizes = part_bytes(RECIPE, half)
    full = sum(ref.raw_bytes for ref, _ in pack_model(zoo.init(RECIPE, 1)))
    need = need_of(zoo.init(RECIPE, 1), holding(1), range(3), Options.of({"epochs": 1.0})).total(1)
    nodes = {**graph.nodes, "peer2": replace(graph.nodes["peer2"], memory_bytes=need - 1)}
    nodes["peer3"] = replace(nodes["peer3"], whole_bytes=full - 1)
    parts = part_costs(RECIPE, [half], holding(1))
    costs = Costs(forward_flops(zoo.init(RECIPE, 1), holding(1)), parts)
    trial = trial_of(replace(graph, nodes=nodes), device=Device(flops=1e6, costs=costs))
    plan = plan_for(trial, laps=1, extra={SCALES_KEY: plain_scales([half])})
    works = {w.peer: w for w in travel(trial, plan) if w.kind == "train"}
    state = 4 * sum(sizes.values())  # weights, gradients, two moments
    assert {n: w.state_bytes for n, w in works.items()} == {
        "peer1": 4 * full,
        "peer2": state,
        "peer3": state,
    }
    flop = sum(flop.own for flop in costs.parts[half].values())
    assert flop < sum(costs.layers) / 1.5
    seconds = {name: work.seconds for name, work in works.items()}
    assert seconds["peer2"] == seconds["peer3"] == pytest.approx(3 * 64 * flop / 1e6)
    assert seconds["peer1"] == pytest.approx(3 * 64 * (flop + sum(costs.layers)) / 1e6)


def test_model_state_follows_what_is_trained() -> None:
    refs = tuple(LayerRef(i, str(i), bytes(32), 100) for i in range(3))
    task = LearnTask("train", b"", refs)
    assert state_bytes(task, ((0, 3),), {}) == 300 + 3 * 300
    assert state_bytes(task, ((1, 2),), {}) == 300 + 3 * 100
    assert state_bytes(task, ((1, 2),), {"optimizer": "sgd"}) == 300 + 2 * 100
    assert state_bytes(task, ((1, 2),), {"carry": True, "micro": 4}) == 300 + 3 * 100


def test_flops_of_layers_are_those_of_their_products() -> None:
    module = zoo.init({"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10, "width": 4}, 1)
    image = Holding(np.zeros((1, 1, 8, 8), np.float32), np.zeros(1, np.int64), 10)
    counted = forward_flops(module, image)
    assert len(counted) == len(find_layers(module))
    assert counted[0] == 2 * 64 * 9 * 1 * 4  # 3x3 over 8x8, one channel to four
    assert counted[-1] == 2 * 64 * 10


def test_a_node_that_cannot_learn_ends_it() -> None:
    graph = make("line", 3)
    held = {name: {"data/train": holding(i)} for i, name in enumerate(graph.nodes)}
    held["peer2"]["data/train"] = Holding(np.zeros((9, 5), np.float32), np.zeros(9, np.int64), 2)
    trial = Trial(graph, held, seed=1)
    with pytest.raises(RunError, match="peer2 could not learn: the model does not take samples"):
        travel(trial, plan_for(trial))
