"""What cannot be learned: one sentence at the peer and at home, and the walker goes on.

The worlds are simulated, the learners real; the last tests use a trainer process.
"""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mfd
from mfd.core.birth import bear
from mfd.learn import Holding, Learner, layers, zoo
from mfd.learn.memory import need_of
from mfd.learn.options import Options
from mfd.packet.plan import Plan
from mfd.packet.task import LearnTask
from mfd.sim.keys import SimKey
from mfd.sim.world import World
from mfd.topology import Topology, make
from tests.learn.conftest import plan_of
from tests.learn.test_trainer import Pipe, started
from tests.sim.worlds import arrived, reports

RECIPE = {"zoo": "mlp", "inputs": [4], "classes": 3, "hidden": [8]}
GOOD = Holding(np.random.default_rng(1).random((30, 4), np.float32), np.arange(30) % 3, 3)


def world_with(bad: Any, **options: Any) -> World:
    """Three peers; the data or the learner of the second one is no good."""
    world = World(5)
    for name in "abc":
        held = bad if name == "b" else GOOD
        learner = Learner({"d": held}, threads=1, **(options if name == "b" else {}))
        world.add(name, learner=_Timed(learner)).hold("d", 30)
    for a, b in ("ab", "bc", "ca"):
        world.link(a, b, latency_us=1000, bytes_per_s=1e6)
    return world


class _Timed:
    """A learner that takes a virtual second."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def perform(self, task: Any, read: Any, write: Any) -> Any:
        result = self._learner.perform(task, read, write)
        return type(result)(result.layers, {**result.claims, "seconds": 1.0}, result.trained)


def journey(world: World, recipe: Any = RECIPE, **fields: Any) -> tuple[Any, bytes]:
    home = world.hosts["a"]
    plan = Plan(
        recipe=recipe,
        names=("d",),
        home=home.key.public_key,
        **{"laps": 2, "full_laps": 1, "min_holders": 3, "learn": {"epochs": 1.0}, **fields},
    )
    module = zoo.init(RECIPE, 1)
    parts = [(layer.name, layers.pack(module, layer)) for layer in layers.find_layers(module)]
    birth = bear(plan, parts, SimKey(b"user"), nonce=bytes(16))
    for made in birth.objects:
        home.disk.add(made)
    world.happen(home, birth.event)
    return home, birth.walker


def nan_data() -> Holding:
    x = GOOD.x.copy()
    x[7, 2] = np.nan
    return Holding(x, GOOD.y, 3)


@pytest.mark.parametrize(
    ("bad", "options", "words"),
    [
        (nan_data(), {}, r"the loss is nan before the first step: sample 7 of this peer's data"),
        (
            Holding(GOOD.x * np.float32(3e38), GOOD.y, 3),
            {},
            r"the loss is (\S+ before the first step: the version that came|\S+ at step 1)",
        ),
        (Holding(GOOD.x, GOOD.y + 2, 5), {}, r"answers \[3\] a sample, .* and 5 classes"),
        (Holding(GOOD.x[:, :3], GOOD.y, 3), {}, r"does not take samples of shape \[3\]"),
        (GOOD, {"memory": 100}, r"takes \d.* KiB with one sample at a time"),
        ("npz:none.npz", {}, "no file 'none.npz'"),
    ],
)
def test_a_stop_that_cannot_learn_costs_one_visit(
    bad: Any, options: dict[str, int], words: str
) -> None:
    """Rules: W-13"""
    world = world_with(bad, **options)
    home, walker = journey(world)
    assert world.run(until=arrived(home), seconds=600)
    told = reports(home, "learning failed")
    assert {t["peer"] for t in told} == {world.hosts["b"].key.public_key.hex()}
    assert len(told) == 2  # once a lap
    for each in told:
        assert re.search(words, each["reason"]), each["reason"]
        assert "\n" not in each["reason"]
    assert home.peer is not None
    version = home.peer.version(walker)
    assert version is not None
    assert version.manifest.progress.stops == 4  # the others trained in both laps
    module = zoo.init(RECIPE, 1)
    layers.load_model(module, version.manifest.layers, home.disk.read)
    assert all(bool(torch.isfinite(p).all()) for p in module.parameters())


def test_the_received_version_stays_where_learning_fails() -> None:
    learner = Learner({"d": nan_data()})
    store: dict[bytes, bytes] = {}
    made = layers.pack_model(zoo.init(RECIPE, 1))
    store.update({ref.digest: content.tobytes() for ref, content in made})
    model = tuple(ref for ref, _ in made)
    task = LearnTask("train", plan_of(RECIPE, epochs=1.0), model, name="d", trained=((0, 2),))
    with pytest.raises(ValueError, match="sample 7 of this peer's data holds a number that is not"):
        learner.perform(task, store.__getitem__, pytest.fail)
    again = Learner({"d": GOOD}).perform
    measured = LearnTask("measure", plan_of(RECIPE), model, name="d")
    fresh_loss = again(measured, store.__getitem__, pytest.fail).claims["loss"]
    learner._loaded["d"] = GOOD
    assert learner.perform(measured, store.__getitem__, pytest.fail).claims["loss"] == fresh_loss


def test_what_the_last_step_has_spoilt_is_not_committed() -> None:
    """The loss of a step is from before it: what the last one does shows in measuring alone."""
    learn = {"steps": 1, "lr": 1e6, "optimizer": "sgd", "clip": 0.0, "warmup": 0}
    store: dict[bytes, bytes] = {}
    made = layers.pack_model(zoo.init(RECIPE, 1))
    store.update({ref.digest: content.tobytes() for ref, content in made})
    model = tuple(ref for ref, _ in made)
    task = LearnTask("train", plan_of(RECIPE, **learn), model, name="d", trained=((0, 2),))
    with pytest.raises(ValueError, match=r"the loss is \S+ after 1 steps, it was 1\.\d+; lower"):
        Learner({"d": GOOD}).perform(task, store.__getitem__, pytest.fail)


@pytest.mark.parametrize("memory", [0, 1 << 20])
def test_a_model_that_answers_more_than_logits_is_told_so(memory: int) -> None:
    class Both(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x), x

    learner = Learner({"d": GOOD}, build=lambda _: Both(4, 3), memory=memory)
    store: dict[bytes, bytes] = {}
    made = layers.pack_model(Both(4, 3))
    store.update({ref.digest: content.tobytes() for ref, content in made})
    plan = plan_of({"local": "Both"}, epochs=1.0)
    task = LearnTask("train", plan, tuple(ref for ref, _ in made), name="d", trained=((0, 1),))
    with pytest.raises(ValueError, match="the model answers a tuple, and what learns here"):
        learner.perform(task, store.__getitem__, pytest.fail)


def test_a_plan_for_layers_that_do_not_exist_waits_at_home_and_says_so() -> None:
    """Rules: W-27"""
    world = world_with(GOOD)
    home, walker = journey(world, body=(1, 7))
    world.run(seconds=30)
    told = [r["reason"] for r in reports(home, "parked")]
    assert told[0] == "the plan names layers 1:7, and the model has 2: send it anew"
    assert home.peer is not None
    assert home.peer.version(walker) is not None


def test_memory_decides_block_by_block_in_a_whole_journey() -> None:
    """Rules: W-26"""
    recipe = {"zoo": "mlp", "inputs": [4], "classes": 3, "hidden": [8, 8, 8, 8]}
    part = Holding(GOOD.x[:10], GOOD.y[:10], 3)
    options = Options(epochs=1.0, distill=0.0, optimizer="sgd")
    need = need_of(zoo.init(recipe, 1), part, [0, 1, 4], options).total(3)
    run = mfd.run(
        zoo.init(recipe, 1),
        data=lambda part, parts: (GOOD.x[part::parts], GOOD.y[part::parts]),
        topology=_weak(need),
        layers_per_stop=0,
        full_laps=0,
        laps=3,
        epochs=1.0,
        distill=0.0,
        optimizer="sgd",
    )
    shown = [(h["peer"], h["layers"]) for h in run.history if h["kind"] == "stop"]
    assert len(shown) == 9
    weak = {text for peer, text in shown if peer == "n1"}
    assert all(text != "0:5" for text in weak)
    assert all(h["estimate_bytes"] <= need for h in run.history if h["peer"] == "n1")


def _weak(need: int) -> Topology:
    graph = make("ring", 3)
    names = list(graph.nodes)
    nodes = {n: replace(graph.nodes[n], memory_bytes=need * (n == names[1])) for n in names}
    renamed = {f"n{i}": nodes[n] for i, n in enumerate(names)}
    new = dict(zip(names, renamed, strict=True))
    edges = tuple(replace(e, a=new[e.a], b=new[e.b]) for e in graph.edges)
    return replace(graph, nodes=renamed, edges=edges)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA is Linux's")
def test_the_system_refuses_what_goes_far_beyond_the_budget() -> None:
    """In a process of its own, since the limit stays."""
    code = (
        "from mfd.learn.trainer import _limit_memory\n"
        "from mfd.learn.memory import is_want_of_memory\n"
        "import torch\n"
        "_limit_memory(8 << 20)\n"
        "torch.ones(8 << 20)\n"
        "try:\n"
        "    torch.ones(1 << 28)\n"
        "except RuntimeError as exc:\n"
        "    print(is_want_of_memory(exc))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_a_trainer_lives_on_after_what_it_cannot_do(tmp_path: Path) -> None:
    """A batch beyond the budget is cut; no samples, or no room for one layer, is one sentence."""
    (tmp_path / "eats.py").write_text(
        "import numpy as np\n"
        "def make():\n"
        "    return np.zeros((64, 1, 8, 8), np.float32), np.arange(64) % 10\n"
    )
    with started(tmp_path) as pipe:
        _serve(pipe, tmp_path)


def _serve(pipe: Pipe, folder: Path) -> None:
    pipe.send(
        1,
        "hello",
        holdings={"d": "py:eats:make", "none": "npz:" + str(_empty(folder))},
        allow_py=True,
        memory=8 << 20,
    )
    assert pipe.receive()["ok"]
    pipe.send(2, "perform", **pipe.job(pipe.task("d", batch=1_000_000, epochs=1.0)))
    answer = _answer(pipe)
    assert answer["ok"], answer
    assert answer["result"]["claims"]["estimate_bytes"] <= 8 << 20
    pipe.send(3, "perform", **pipe.job(pipe.task("none")))
    answer = _answer(pipe)
    assert "it has no samples" in answer["error"]
    pipe.send(4, "hello", holdings={"d": "py:eats:make"}, allow_py=True, memory=64 << 10)
    assert pipe.receive()["ok"]
    pipe.send(5, "perform", **pipe.job(pipe.task("d")))
    answer = _answer(pipe)
    assert not answer["ok"]
    assert "this peer allows 64.0 KiB: raise its memory" in answer["error"]


def _answer(pipe: Pipe) -> dict[str, Any]:
    while "progress" in (message := pipe.receive()):
        pass
    return message


def _empty(folder: Path) -> Path:
    path = folder / "none.npz"
    np.savez(path, x=np.zeros((0, 1, 8, 8), np.float32), y=np.zeros(0, np.int64))
    return path
