"""mfd.run: the model comes back trained, the same seed gives the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import mfd
from mfd.api import RunError
from mfd.topology import Edge, Node, Topology


def net() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
    )


def shard(part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([part, parts])
    x = rng.standard_normal((64, 4)).astype(np.float32)
    return x, (x[:, 0] + x[:, 1] > 0).astype(np.int64)


def state(module: nn.Module) -> list[bytes]:
    return [value.numpy().tobytes() for value in module.state_dict().values()]


def test_a_snake_learns_and_the_given_model_is_left_alone() -> None:
    model = net()
    before = state(model)
    result = mfd.run(
        model, shard, topology="ring:3", laps=4, layers_per_stop=1, test=shard(9, 9), lr=0.01
    )
    measured = [h["accuracy"] for h in result.history if h["kind"] == "measured"]
    assert len(measured) == 4
    assert measured[-1] > 0.85
    assert state(model) == before
    assert state(result.model) != before
    assert len(result.route) == 12
    assert set(result.route) == {"peer1", "peer2", "peer3"}


@pytest.mark.parametrize(("mode", "choose"), [("walk", ""), ("snake", ""), ("gossip", "")])
def test_several_walkers_bring_back_one_model(mode: str, choose: str) -> None:
    keys = {"topology": "ring:4", "laps": 3, "layers_per_stop": 1, "lr": 0.01, "mode": mode}
    result = mfd.run(net(), shard, walkers=3, merge="clip:2", gate=5.0, choose=choose, **keys)
    again = mfd.run(net(), shard, walkers=3, merge="clip:2", gate=5.0, choose=choose, **keys)
    assert state(result.model) == state(again.model)
    stops = [h for h in result.history if h["kind"] == "stop"]
    assert {h["walker"] for h in stops} == {1, 2, 3}
    assert len(stops) == 36
    assert any(h["kind"] == "merged" and h["with"] for h in result.history)
    x, y = (torch.from_numpy(part) for part in shard(9, 9))
    result.model.eval()
    assert float((result.model(x).argmax(1) == y).float().mean()) > 0.8


def test_what_no_peer_would_read_is_refused() -> None:
    for wrong in ({"walkers": 65}, {"merge": "magic"}, {"choose": "best"}, {"gate": -1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} is "):
            mfd.run(net(), shard, topology="ring:3", **wrong)


def test_the_same_seed_gives_the_same_model_and_another_seed_another() -> None:
    runs = [mfd.run(net(), shard, topology="line:3", laps=2, seed=s) for s in (5, 5, 6)]
    assert state(runs[0].model) == state(runs[1].model)
    assert (runs[0].wire_bytes, runs[0].seconds) == (runs[1].wire_bytes, runs[1].seconds)
    assert state(runs[0].model) != state(runs[2].model)


@pytest.mark.parametrize("mode", ["walk", "fedavg"])
def test_the_baselines_run_on_the_same_overlay(mode: str) -> None:
    result = mfd.run(net(), shard, topology="star:4", mode=mode, laps=3, test=shard(9, 9), lr=0.01)
    stops = [h for h in result.history if h["kind"] == "stop"]
    assert len(stops) == (12 if mode == "walk" else 3)
    assert result.history[-1]["accuracy"] > 0.8


def test_what_does_not_fit_is_said_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="home 'nowhere' is not a node"):
        mfd.run(net(), shard, topology="ring:3", home="nowhere")
    with pytest.raises(TypeError, match="labels of peer1 are float32"):
        mfd.run(net(), lambda p, n: (shard(p, n)[0], shard(p, n)[0][:, 0]), topology="ring:3")
    with pytest.raises(ValueError, match="64 samples and 63 labels"):
        mfd.run(net(), lambda p, n: (shard(p, n)[0], shard(p, n)[1][1:]), topology="ring:3")


def test_a_model_that_does_not_fit_the_data_is_said_at_once() -> None:
    def wrong(part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        x, y = shard(part, parts)
        return x[:, :3], y

    with pytest.raises(RunError, match="peer1 could not learn"):
        mfd.run(net(), wrong, topology="ring:3", laps=1)


def test_a_walker_that_cannot_come_home_says_what_it_waits_for() -> None:
    """Two islands: the holder on the other one is never seen."""
    islands = Topology({name: Node() for name in "abc"}, (Edge("a", "b"),))
    with pytest.raises(RunError, match="2 of 3 holders"):
        mfd.run(net(), shard, topology=islands, laps=1)


@pytest.mark.parametrize("mode", ["snake", "walk", "fedavg"])
def test_adapters_travel_alone_and_their_base_keeps_every_bit(mode: str) -> None:
    """Rules: W-35"""
    pytest.importorskip("peft")
    from mfd.learn import recipes
    from tests.learn import hfmodels

    model = recipes.init(hfmodels.with_lora(hfmodels.GPT2), 1)

    def tokens(part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
        starts = np.random.default_rng([part, parts]).integers(0, 64, (24, 1))
        made = (starts + 3 * np.arange(13)) % 64
        return made[:, :-1], made[:, 1:]

    result = mfd.run(
        model, tokens, topology="line:3", mode=mode, laps=2, layers_per_stop=1, lr=2e-2, epochs=3.0
    )
    before, after = model.state_dict(), result.model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed
    assert all("lora_" in key for key in changed)
    stops = [h for h in result.history if h["kind"] == "stop"]
    assert stops[-1]["loss"] < stops[0]["loss_before"]
