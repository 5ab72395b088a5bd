"""`mfd up`: a whole network from one file, with links as the file says."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from mfd.cli.client import Client
from mfd.cli.config import load_settings
from mfd.cli.errors import Misuse
from mfd.cli.main import main
from mfd.cli.peer import _from_topology
from mfd.cli.running import make_node
from mfd.net.emulation import Wire
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
    for node in nodes:
        assert Client(node["status"]).get("status")["peer"] == node["peer"]
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=15)
    assert (process.returncode, out, errors) == (0, "", "")
    assert (tmp_path / "mfd-up" / "pair" / "ada" / "key").exists()


def test_a_graph_that_cannot_run_is_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "islands.toml"
    path.write_text("[nodes.a]\n[nodes.b]\n")
    assert main(["up", str(path)]) == 2
    assert "falls into 2 islands" in capsys.readouterr().err


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
