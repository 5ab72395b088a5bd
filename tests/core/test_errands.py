"""Errands: measured and trained for an owner that keeps the walker."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfd.core import errands
from mfd.core.config import Config
from mfd.core.tasks import read_claims, read_task
from mfd.packet.errors import PacketError
from mfd.packet.objects import unpack_layer
from mfd.sim.standin import StandIn
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

STAR = [("a", "b"), ("a", "c"), ("a", "d")]


def weights(host, version) -> list[np.ndarray]:
    return [unpack_layer(host.disk.read(r.digest))["w"].array() for r in version.manifest.layers]


def test_a_round_is_the_weighted_mean() -> None:
    """The merged version equals the plain average of what each client makes of the same start.

    Rules: C-27, W-11
    """
    world = world_of(STAR, "abcd")
    samples = {"a": 10, "b": 100, "c": 300, "d": 50}
    for name, count in samples.items():
        world.hosts[name].learner.samples = count
    birth = walker_for(
        world, "a", layers=3, floats=200, mode="fedavg", laps=1, min_holders=4, seed=11
    )
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    version = home.peer.version(birth.walker)
    tasks = {n: h.learner.tasks[0] for n, h in world.hosts.items()}
    start = [unpack_layer(layer.tobytes())["w"].array() for layer in birth.objects]
    total = sum(samples.values())
    for i, got in enumerate(weights(home, version)):
        mean = sum(
            count
            / total
            * (
                start[i]
                + np.random.default_rng([tasks[n].seed, i]).standard_normal(
                    start[i].shape, dtype=np.float32
                )
            )
            for n, count in samples.items()
        )
        np.testing.assert_allclose(got, mean, rtol=1e-5, atol=1e-6)
    assert version.manifest.claims == {"samples": 460.0, "steps": 40}
    assert len(version.manifest.parents) == 5
    assert version.manifest.progress.stops == 4


def test_a_round_says_which_layers_may_have_learned() -> None:
    """Rules: W-11, W-35"""
    world = world_of(STAR, "abcd")
    plan = {"mode": "fedavg", "laps": 1, "min_holders": 4, "extra": {39: 2}}
    birth = walker_for(world, "a", layers=5, floats=20, **plan)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    assert home.peer.version(birth.walker).manifest.trained == ((2, 5),)
    assert [told["layers"] for told in reports(home, "stop")] == ["2:5"]


class Weak(StandIn):
    """Has memory for the first layer of what it is asked to train."""

    def __init__(self, told: tuple[tuple[int, int], ...]) -> None:
        super().__init__()
        self.told = told

    def perform(self, task, read, write):
        if task.kind != "train":
            return super().perform(task, read, write)
        low, _ = task.trained[0]
        result = super().perform(replace(task, trained=((low, low + 1),)), read, write)
        return replace(result, trained=self.told)


def test_a_client_signs_what_it_has_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what it was asked for: a client with little memory trains less.

    Rules: C-27
    """
    world = world_of(STAR, "abcd")
    world.hosts["b"].learner, world.hosts["a"].learner = Weak(((0, 1),)), Weak(((0, 1),))
    made: dict[bytes, object] = {}
    real = errands.child_of

    def noted(version, learn, result, signer):
        child = real(version, learn, result, signer)
        made[signer.public_key] = child.manifest.trained
        return child

    monkeypatch.setattr(errands, "child_of", noted)
    birth = walker_for(world, "a", layers=3, floats=20, mode="fedavg", laps=1, min_holders=4)
    inject(world, "a", birth)
    assert world.run(until=arrived(world.hosts["a"]), seconds=60)
    keys = {name: host.key.public_key for name, host in world.hosts.items()}
    assert made == {keys[n]: ((0, 1) if n in "ab" else (0, 3),) for n in "abcd"}
    assert [s["clients"] for s in reports(world.hosts["a"], "stop")] == [4]


def test_a_client_that_trained_what_it_was_not_given_says_that_it_failed() -> None:
    """Rules: C-27"""
    world = world_of(STAR, "abcd")
    world.hosts["b"].learner = Weak(((1, 2),))  # the first layer has changed, and is not in it
    world.hosts["c"].learner = Weak(((0, 9),))
    birth = walker_for(world, "a", layers=3, floats=20, mode="fedavg", laps=1, min_holders=4)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=60)
    for name in "bc":
        (failed,) = reports(world.hosts[name], "learning failed")
        assert failed["reason"] == "the learner trained layers that it was not given"
    assert [s["clients"] for s in reports(home, "stop")] == [2]


def test_a_measure_changes_nothing() -> None:
    """Rules: C-26"""
    world = world_of(STAR, "ab", verifier="d")
    birth = walker_for(
        world, "a", layers=3, floats=50, laps=1, min_holders=2, verify=("data/test",)
    )
    inject(world, "a", birth)
    assert world.run(until=arrived(world.hosts["a"]), seconds=60)
    measured = reports(world.hosts["a"], "measured")
    assert [(m["accuracy"], m["lap"]) for m in measured] == [(0.5, 1)]
    assert measured[0]["by"] == world.hosts["d"].key.public_key.hex()
    walker = world.hosts["d"].peer.status().walkers[0]
    assert walker.role == "none"
    assert world.hosts["a"].peer.version(birth.walker).manifest.seq == 2  # two stops, no more


def test_a_client_that_dies_does_not_stop_the_round() -> None:
    """Rules: C-27, C-28"""
    world = world_of(STAR, "abcd", config=Config(errand_us=5_000_000))
    birth = walker_for(world, "a", layers=2, floats=50, mode="fedavg", laps=2, min_holders=4)
    inject(world, "a", birth)
    dead = world.hosts["c"]
    assert world.run(until=lambda: bool(dead.learner.tasks), seconds=60)
    world.kill(dead)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    assert [s["clients"] for s in reports(home, "stop")] == [3, 3]


class Liar(StandIn):
    def perform(self, task, read, write):
        result = super().perform(task, read, write)
        result.claims.update({"steps": float("nan"), "samples": float("inf"), "lap": 9.0})
        return result


def test_claims_that_are_no_numbers_are_dropped() -> None:
    """Rules: C-28"""
    world = world_of(STAR, "abcd")
    world.hosts["b"].learner = Liar()
    birth = walker_for(world, "a", layers=2, floats=50, mode="fedavg", laps=1, min_holders=4)
    inject(world, "a", birth)
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    assert home.peer.version(birth.walker).manifest.claims["steps"] == 30


def test_claims_are_bounded() -> None:
    """Rules: C-28"""
    wild = {"steps": -5, "samples": 1e300, "loss": -2.5, "x": float("nan"), "y": "z", "b": True}
    assert read_claims(wild) == {"steps": 0.0, "samples": 2.0**40, "loss": -2.5}
    assert len(read_claims({f"k{i}": 1 for i in range(100)})) == 32
    assert read_claims({"k" * 65: 1}) == {}


@pytest.mark.parametrize(
    "task",
    [
        [],
        ["merge", [[0, 1]], [0.0, 1.0]],
        ["train", [], [0.0, 1.0]],
        ["train", [[0, 1]] * 5, [0.0, 1.0]],
        ["train", [[1, 2], [0, 1]], [0.0, 1.0]],
        ["train", [[0, 3], [2, 4]], [0.0, 1.0]],
        ["train", [[0, 7]], [0.0, 1.0]],
        ["train", [[1, 1]], [0.0, 1.0]],
        ["train", [[False, True]], [0.0, 1.0]],
        ["train", [[0, 1]], [0.5, 0.2]],
        ["train", [[0, 1]], [0.0, float("nan")]],
        ["train", [[0, 1]], [0, 1]],
        ["measure", [[0, 1]], [0.0, 1.0]],
    ],
    ids=str,
)
def test_a_task_of_a_wrong_form(task: list) -> None:
    """Rules: C-26"""
    with pytest.raises(PacketError):
        read_task(task, 6)


def test_a_task_of_the_right_form() -> None:
    """Rules: C-26"""
    ranges = [[0, 2], [2, 3], [5, 6]]
    assert read_task(["train", ranges, [0.25, 0.5]], 6) == (
        "train",
        ((0, 2), (2, 3), (5, 6)),
        (0.25, 0.5),
    )
    assert read_task(["measure", [], [0.0, 1.0]], 6) == ("measure", (), (0.0, 1.0))
