"""Real processes where others stall: a long line, a ring that is cut, nobody near."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.client import Client
from mfd.cli.fleet import Fleet, with_free_ports
from mfd.cli.plans import make_plan
from mfd.cli.sending import build, make_walker
from mfd.net.keys import KeyPair
from mfd.topology import Edge, Node, Topology
from tests.cli.conftest import RunningPeer, digits

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(300)  # up to five trainers start on one machine

RECIPE = {"zoo": "mlp", "inputs": [64], "classes": 10, "hidden": [8]}
SETTINGS = {"lease_seconds": 5.0, "threads": 1}


def holder(part: int, parts: int) -> Node:
    return Node(hold={"digits/train": f"sklearn:digits?part={part}/{parts}&seed=1"})


def send(client: Client, home: str, **fields: Any) -> str:
    """Send a small model out; the plan names a prefix, so holders are found as `digits`."""
    learn = {"epochs": 0.2}
    table = {"recipe": RECIPE, "names": ["digits"], "seed": 1, "learn": learn, **fields}
    plan = make_plan(table, bytes.fromhex(home))
    walker, parts = make_walker(build(RECIPE, seed=1), plan, KeyPair.from_seed(bytes(32)))
    client.post_walker(parts)
    return walker


def story(client: Client, walker: str) -> Iterator[dict[str, Any]]:
    """Reports at home until the walker is back."""
    for batch in client.follow(walker):
        for report in batch:
            yield report
            if report["kind"] == "arrived":
                return


def test_on_a_line_a_model_reaches_holders_beyond_the_nearest_four(tmp_path: Path) -> None:
    """Five holders and a relay in a row: the last one is found by SEEK."""
    nodes = {name: holder(i, 5) for i, name in enumerate(("h1", "h2", "h3", "h4", "h5"), 1)}
    order = ["h1", "h2", "relay", "h3", "h4", "h5"]
    graph = Topology({**nodes, "relay": Node()}, tuple(Edge(a, b) for a, b in pairwise(order)))
    with Fleet(with_free_ports(graph), tmp_path, SETTINGS) as fleet:
        home = fleet.client("h1")
        walker = send(home, fleet.members["h1"].peer, laps=1, min_holders=5)
        names = fleet.names()
        told = list(story(home, walker))
        stops = [names[report["peer"]] for report in told if report["kind"] == "stop"]
        assert sorted(stops) == ["h1", "h2", "h3", "h4", "h5"]
        assert home.get("status")["counters"]["seeks_sent"] >= 1


def test_in_a_ring_a_relay_that_is_killed_is_gone_round(tmp_path: Path) -> None:
    """The way that the model has taken is cut; it goes on, and home, the other way."""
    order = ["ada", "r1", "bea", "r2", "cleo", "r3", "ada"]
    nodes = {n: holder(i, 3) for i, n in enumerate(("ada", "bea", "cleo"), 1)}
    relays = {name: Node() for name in ("r1", "r2", "r3")}
    graph = Topology({**nodes, **relays}, tuple(Edge(a, b) for a, b in pairwise(order)))
    with Fleet(with_free_ports(graph), tmp_path, SETTINGS) as fleet:
        home = fleet.client("ada")
        walker = send(home, fleet.members["ada"].peer, laps=3, min_holders=3)
        names = fleet.names()
        stops: list[str] = []
        killed = ""
        for report in story(home, walker):
            if report["kind"] == "stop":
                stops.append(names[report["peer"]])
            if report["kind"] == "handed" and not killed:
                killed = {"bea": "r1", "cleo": "r3"}[names[report["target"]]]
                os.kill(fleet.members[killed].process.pid, signal.SIGKILL)
        assert killed
        assert len(stops) == 9
        assert all(set(stops[i : i + 3]) == {"ada", "bea", "cleo"} for i in (0, 3, 6))
        (status,) = home.get("status")["walkers"]
        assert (status["role"], status["epoch"]) == ("done", 0), "nobody had to re-issue it"


def test_a_model_that_finds_nobody_says_so_and_moves_on_when_somebody_comes(
    start: Callable[..., RunningPeer], tmp_path: Path
) -> None:
    """Parked at home; the holder joins behind a relay."""
    home = start("--given", "--custodian")
    relay = start("--given", "--join", home.told["join"])
    client = Client(home.told["status"])
    walker = send(client, home.told["peer"], laps=1)
    reports = story(client, walker)
    parked = next(report for report in reports if report["kind"] == "parked")
    assert parked["reason"] == "0 of 1 holders of digits are known"
    (status,) = client.get("status")["walkers"]
    assert status["activity"].startswith("parked: 0 of 1 holders of digits")
    late = start(
        "--given", "--join", relay.told["join"], "--hold", digits("1/3") + "&announce=labels"
    )
    rest = list(reports)
    assert [r["peer"] for r in rest if r["kind"] == "stop"] == [late.told["peer"]]
    routes = [r for r in client.get("routes")["routes"] if not r["name"].startswith("@")]
    assert {r["name"]: r["hops"] for r in routes} == {"digits": 2, "digits/train": 2}
    labels = {r["name"]: r["labels"] for r in routes}
    assert labels["digits"] == []
    assert len(labels["digits/train"]) == 10


def test_a_peer_that_takes_only_parts_trains_a_half(tmp_path: Path) -> None:
    """Real trainers: home cuts the half, `weak` trains it, home lays it back. Rules: C-38, W-28"""
    weak = replace(holder(2, 2), whole_bytes=2_500)
    graph = Topology({"home": holder(1, 2), "weak": weak}, (Edge("home", "weak"),))
    with Fleet(with_free_ports(graph), tmp_path, SETTINGS) as fleet:
        home = fleet.client("home")
        peer, other = (fleet.members[name].peer for name in ("home", "weak"))
        walker = send(home, peer, laps=1, min_holders=2, mode="walk", scales=["0.5"])
        told = list(story(home, walker))
        stops = [report for report in told if report["kind"] == "stop"]
        assert [(stop["peer"], stop.get("by")) for stop in stops] == [(peer, None), (peer, other)]
        assert stops[1]["width"] == 0.5
        assert stops[1]["steps"] > 0
        assert not any(report["kind"] == "handed" for report in told)
        assert [w["role"] for w in fleet.client("weak").get("walkers")["walkers"]] == ["none"]
