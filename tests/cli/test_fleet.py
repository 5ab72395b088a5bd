"""Real processes over loopback: a walker survives the death of the peer that owns it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.errors import CommandError
from mfd.cli.fleet import Fleet, with_free_ports
from mfd.cli.plans import make_plan
from mfd.cli.sending import build, make_walker
from mfd.net.keys import KeyPair
from mfd.topology import Edge, Node, Topology

RECIPE = {"zoo": "mlp", "inputs": [64], "classes": 10, "hidden": [16, 16]}


def holder(part: int, parts: int = 3) -> Node:
    return Node(hold={"digits/train": f"sklearn:digits?part={part}/{parts}&skew=0.5&seed=1"})


@pytest.fixture
def line() -> Topology:
    """Three holders in a line through a relay; the first is home."""
    nodes = {"ada": holder(1), "relay": Node(), "bea": holder(2), "cleo": holder(3)}
    edges = (Edge("ada", "relay"), Edge("relay", "bea"), Edge("bea", "cleo"))
    return with_free_ports(Topology(nodes, edges))


def send(fleet: Fleet, home: str, **fields: Any) -> str:
    table = {"recipe": RECIPE, "names": ["digits/train"], "seed": 1, "min_holders": 3, **fields}
    plan = make_plan(table, bytes.fromhex(fleet.members[home].peer))
    walker, parts = make_walker(build(RECIPE, seed=1), plan, KeyPair.from_seed(bytes(32)))
    fleet.client(home).post_walker(parts)
    return walker


def reports(fleet: Fleet, name: str, walker: str) -> Iterator[dict[str, Any]]:
    for batch in fleet.client(name).follow(walker):
        yield from batch


def test_the_owner_is_killed_and_its_predecessor_goes_on(line: Topology, tmp_path: Path) -> None:
    with Fleet(line, tmp_path, {"lease_seconds": 2.0, "threads": 1}) as fleet:
        processes = {name: member.process for name, member in fleet.members.items()}
        walker = send(fleet, "ada", laps=3, learn={"epochs": 1})
        names = fleet.names()
        victim, killed, again, route = None, False, None, []
        for report in reports(fleet, "ada", walker):
            if report["kind"] == "stop":
                route.append(names[report["peer"]])
            if report["kind"] == "handed" and victim is None:
                victim = names[report["target"]]
                os.kill(fleet.members[victim].process.pid, signal.SIGKILL)
                killed = True
            if report["kind"] == "reissued":
                again = names[report["peer"]]
            if report["kind"] == "arrived":
                break
        assert killed
        assert again == "ada", "the predecessor takes it up"
        status = fleet.client("ada").get("status")
        assert [w["role"] for w in status["walkers"]] == ["done"]
        assert status["walkers"][0]["epoch"] == 1
        assert victim not in route[2:], "nobody waits for the dead"
        left = {"ada", "bea", "cleo"} - {victim}
        if victim == "cleo":
            assert set(route) == left
    codes = {name: process.returncode for name, process in processes.items()}
    assert codes == {**dict.fromkeys(line.nodes, 0), victim: -signal.SIGKILL}
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(tmp_path) not in listed.stdout, "stopping a fleet leaves no process"


def test_a_peer_that_cannot_start_is_named_with_its_reason(tmp_path: Path) -> None:
    wrong = Node(hold={"x/train": "idx:/no/such/folder"})
    bad = with_free_ports(Topology({"ada": Node(), "cleo": wrong}, (Edge("ada", "cleo"),)))
    with pytest.raises(CommandError, match=r"peer cleo has ended with exit code 2.*no/such/folder"):
        Fleet(bad, tmp_path, {}).__enter__()


def test_a_peer_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Its standard input ends when the starter dies, even by SIGKILL."""
    lonely = with_free_ports(Topology({"solo": Node()}, ()))
    with Fleet(lonely, tmp_path, {}) as fleet:
        assert fleet.sent_bytes() == 0  # nobody to send to yet, as a peer that has just started
        process = fleet.members["solo"].process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
