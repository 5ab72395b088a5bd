"""`mfd up`: a whole network from one file, with links as the file says."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mfd.cli.client import Client
from mfd.cli.config import load_settings
from mfd.cli.errors import Misuse
from mfd.cli.fleet import Member
from mfd.cli.main import main
from mfd.cli.peer import _from_topology
from mfd.cli.running import make_node
from mfd.cli.up import _tell
from mfd.net.emulation import Wire
from mfd.topology import Topology, load
from tests.cli.conftest import program

GRAPH = """
[nodes.ada]
[nodes.bea]
[[edges]]
a = "ada"
b = "bea"
latency_us = 20000
bandwidth_bps = 8000000
loss = 0.01
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "pair.toml"
    path.write_text(GRAPH)
    return path


def test_a_network_runs_until_it_is_stopped(graph: Path, tmp_path: Path) -> None:
    process = program("main", "up", str(graph), "--emulate", "--json", cwd=tmp_path)
    assert process.stdout is not None
    nodes = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [node["node"] for node in nodes] == ["ada", "bea"]
    link = json.loads(process.stdout.readline())
    told = {"latency_us": 20_000, "bandwidth_bps": 8_000_000, "loss": 0.01}
    assert link == {"link": ["ada", "bea"], **told}
    for node in nodes:
        assert Client(node["status"]).get("status")["peer"] == node["peer"]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=15)
    assert (process.returncode, out, errors) == (0, "", "")
    assert (tmp_path / "mfd-up" / "pair" / "ada" / "key").exists()


class Started:
    """What `_tell` looks at of a fleet that runs."""

    def __init__(self, topology: Topology) -> None:
        self.topology = topology
        self.members = {name: Member(name, None, Path(name), "ab" * 32) for name in topology.nodes}

    def client(self, name: str) -> Client:
        return Client(f"http://{name}:1")


def test_what_is_emulated_is_told_link_by_link(
    graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    graph.write_text(GRAPH + '[nodes.cleo]\n[[edges]]\na = "bea"\nb = "cleo"\n')
    _tell(Started(load(graph)), tmp_path, emulate=True, as_json=False)
    said = capsys.readouterr().out
    assert "ada - bea   20 ms one way, 8 Mbit/s, 1.00% of the packets lost" in said
    assert "bea - cleo  nothing: as fast as this machine" in said
    assert "2 links, emulated;" in said


def test_a_file_that_asks_for_nothing_to_be_emulated_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    line3 = Path(__file__).parents[2] / "topologies" / "line3.toml"
    _tell(Started(load(line3)), tmp_path, emulate=True, as_json=False)
    said = capsys.readouterr().out
    assert "no link is emulated: none in the file has latency_us, bandwidth_bps or loss" in said
    assert "2 links;" in said
    _tell(Started(load(line3)), tmp_path, emulate=False, as_json=False)
    assert "emulated" not in capsys.readouterr().out


def test_a_graph_that_cannot_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "islands.toml"
    path.write_text("[nodes.a]\n[nodes.b]\n")
    assert main(["up", str(path)]) == 2
    assert "falls into 2 islands" in capsys.readouterr().err
    (tmp_path / "one.toml").write_text("[nodes.a]\n")
    (tmp_path / "states" / "topology.toml").mkdir(parents=True)
    assert main(["up", str(tmp_path / "one.toml"), "--folder", str(tmp_path / "states")]) == 1
    said = capsys.readouterr().err
    assert "topology.toml: cannot be written: Is a directory" in said
    assert "bug" not in said


def test_the_dialling_end_of_an_edge_knows_what_to_emulate(graph: Path, tmp_path: Path) -> None:
    text = GRAPH.replace("[nodes.ada]", '[nodes.ada]\naddress = "127.0.0.1:5001"')
    graph.write_text(text.replace("[nodes.bea]", '[nodes.bea]\naddress = "127.0.0.1:5002"'))
    plain = load_settings(None, _from_topology(graph, "ada", emulate=False))
    assert plain.emulate is None
    settings = load_settings(None, _from_topology(graph, "ada", emulate=True))
    node = make_node(settings, tmp_path / "state", print)
    assert node._emulate == {"127.0.0.1:5002": Wire(20_000, 8_000_000, 0.01)}
    other = load_settings(None, _from_topology(graph, "bea", emulate=True))
    assert other.emulate == {}


def test_a_link_that_cannot_be_is_refused() -> None:
    with pytest.raises(Misuse, match="loss"):
        load_settings(None, {"emulate": {"127.0.0.1:1": {"loss": 1.5}}})
