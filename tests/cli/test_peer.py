"""`mfd-peer` as a process: what it prints, how it stops, what it refuses."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mfd.cli import peer as peer_module
from mfd.cli import running
from mfd.cli.config import load_settings
from mfd.cli.peer import main
from mfd.topology import load
from tests.cli.conftest import RunningPeer, digits, program

Start = Callable[..., RunningPeer]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_is_quick_clean_and_resumes(start: Start, tmp_path: Path, number: int) -> None:
    first = start("--state", "kept")
    began = time.monotonic()
    assert first.stop(number) == 0
    assert time.monotonic() - began < 2
    second = start("--state", "kept")
    assert second.told["peer"] == first.told["peer"]
    assert second.stop(number) == 0


def test_a_holder_stops_its_trainer_too(start: Start) -> None:
    peer = start("--hold", digits("1/9"))
    children = _children(peer.process.pid)
    assert len(children) == 1
    began = time.monotonic()
    assert peer.stop() == 0
    assert time.monotonic() - began < 2
    assert not any(Path(f"/proc/{child}").exists() for child in children)


def test_a_relay_starts_no_trainer_and_loads_no_torch(start: Start) -> None:
    peer = start()
    assert _children(peer.process.pid) == []
    maps = Path(f"/proc/{peer.process.pid}/maps").read_text()
    assert "/numpy/" in maps  # so that the next line can tell something
    assert not [name for name in ("/torch/", "/sklearn/", "/scipy/") if name in maps]


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_what_people_read_at_the_start(tmp_path: Path) -> None:
    process = program("peer", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert process.stdout is not None
    lines = dict(process.stdout.readline().split() for _ in range(4))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10) == ("", "")
    address = lines["status"].removeprefix("http://").rstrip("/")
    assert lines["join"] == f"mfd://{address}/{lines['peer']}?network=mfd"
    assert lines["state"] == f"mfd-state/{address.rpartition(':')[2]}"
    assert (tmp_path / lines["state"] / "key").stat().st_mode & 0o777 == 0o600


def test_reports_are_lines_of_json(tmp_path: Path, start: Start) -> None:
    other = start()
    process = program("peer", "--json", "--join", other.told["join"], cwd=tmp_path)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["kind"] == "started"
    linked = json.loads(process.stdout.readline())
    assert (linked["kind"], linked["peer"]) == ("linked", other.told["peer"])
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 0


def test_a_topology_makes_one_link_for_each_edge(tmp_path: Path, start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    graph = tmp_path / "pair.toml"
    graph.write_text(
        f'[nodes.a]\n[nodes.b]\naddress = "127.0.0.1:{port}"\n'
        '[[edges]]\na = "b"\nb = "a"\nlatency_us = 7000\n'
    )
    told = {n: peer_module._from_topology(graph, n) for n in ("a", "b")}
    assert told["b"]["join"] == []
    assert told["a"]["join"] == [f"127.0.0.1:{port}"]
    assert told["a"]["costs"] == {f"127.0.0.1:{port}": 700}
    second = start("--topology", str(graph), "--node", "b")
    assert second.address == f"127.0.0.1:{port}"
    process = program("peer", "--json", "--topology", str(graph), "--node", "a", cwd=tmp_path)
    assert process.stdout is not None
    started, linked = (json.loads(process.stdout.readline()) for _ in range(2))
    assert started["state"] == "mfd-state/a"
    assert linked["peer"] == second.told["peer"]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)


def test_a_network_is_open_unless_its_links_are_told() -> None:
    graph = _campus()
    told = peer_module._from_topology(graph, next(iter(load(graph).nodes)))
    assert running._config(load_settings(None, told)).open_network is False
    alone = running._config(load_settings(None, {"neighbours": 10, "known": 100}))
    assert alone.open_network
    assert (alone.active_target, alone.active_max, alone.passive_max) == (10, 12, 100)
    given = running._config(load_settings(None, {"open_network": False, "links_max": 9}))
    assert (given.open_network, given.links_max) == (False, 9)


def _campus() -> Path:
    return Path(__file__).parents[2] / "topologies" / "campus6.toml"


def test_the_campus_starts_from_its_file() -> None:
    graph = load(_campus())
    joins = {name: peer_module._from_topology(_campus(), name) for name in graph.nodes}
    assert sum(len(told["join"]) for told in joins.values()) == len(graph.edges)
    assert all(told["hold"] == dict(graph.nodes[name].hold) for name, told in joins.items())


def test_settings_are_refused_with_one_sentence(
    tmp_path: Path,
    start: Start,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    running = start("--state", "used")
    Path("typo.toml").write_text('netwrk = "x"\n')
    Path("broken.toml").write_text("listen = \n")
    Path("kind.toml").write_text('slots = "many"\n')
    Path("secret.toml").write_text('network_key_file = "open.key"\n')
    Path("open.key").write_text("x" * 32)
    Path("wrong").mkdir()
    Path("wrong/key").write_text("no key")
    os.chmod("wrong/key", 0o600)
    Path("lonely.toml").write_text('[nodes.a]\n[[edges]]\na = "a"\nb = "b"\n')
    cases = {
        ("--listen", running.address): "is in use",
        ("--listen", "nowhere"): "host:port",
        ("--listen", "192.0.2.1:0"): "192.0.2.1:0",
        ("--join", "nowhere"): "not an address",
        ("--join", "mfd://h:1/12?network=mfd"): "not a peer id",
        ("--join", running.told["join"].replace("=mfd", "=other")): "network 'other'",
        ("--hold", "digits/train"): "NAME=ADDRESS",
        ("--hold", "a=ftp:x"): "ftp",
        ("--hold", "a=npz:none.npz"): "none.npz",
        ("--hold", "a=py:m:f"): "allow_py",
        ("--config", "none.toml"): "none.toml cannot be read",
        ("--config", "broken.toml"): "not valid TOML",
        ("--config", "typo.toml"): "did you mean 'network'",
        ("--config", "kind.toml"): "slots",
        ("--config", "secret.toml"): "chmod 600",
        ("--topology", "none.toml", "--node", "a"): "none.toml",
        ("--topology", "lonely.toml", "--node", "a"): "no node 'b'",
        ("--topology", str(_campus()), "--node", "relai"): "did you mean 'relay'",
        ("--node", "a"): "go together",
        ("--state", "used"): "in use by another peer",
        ("--state", "wrong"): "does not hold a key",
        ("--state", "open.key/x"): "open.key",
    }
    for argv, part in cases.items():
        capsys.readouterr()
        assert main(list(argv)) == 2, argv
        said = capsys.readouterr()
        assert part in said.err, argv
        assert said.err.count("\n") == 1, said.err
        assert said.out == ""


def test_a_bug_is_one_line_and_its_own_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MFD_DEBUG", raising=False)

    def broken(*_: object) -> None:
        raise ZeroDivisionError("by nobody")

    monkeypatch.setattr("mfd.cli.running.make_node", broken)
    assert main([]) == 70
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "ZeroDivisionError: by nobody" in said
    assert "MFD_DEBUG=1" in said
    monkeypatch.setenv("MFD_DEBUG", "1")
    assert main([]) == 70
    assert "Traceback" in capsys.readouterr().err


def test_a_topology_tells_a_peer_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "graph.toml"
    path.write_text('[nodes.a]\naddress = "127.0.0.1:7000"\nmemory = "2GiB"\nwhole = "64KiB"\n')
    told = peer_module._from_topology(path, "a")
    assert (told["memory"], told["whole"]) == (f"{2 << 30}B", f"{64 << 10}B")
