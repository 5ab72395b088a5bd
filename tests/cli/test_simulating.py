"""`mfd sim` and `mfd replay`: what happened, what went wrong, and the line that runs it again."""

from __future__ import annotations

import json
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import pytest

from mfd.cli.main import main
from mfd.cli.simulating import _again
from mfd.core.routetable import RouteTable

QUICK = ["sim", "--generate", "ring", "--peers", "6", "--timers", "quick", "--seconds", "8"]
FAULTS = ["--faults", "crash=2,loss=1%,partition@2s-4s"]


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = main(list(args))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_run_is_told_in_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *QUICK, *FAULTS, "--seed", "7")
    assert (code, err) == (0, "")
    rows = {line[:18].strip(): line[18:].strip() for line in out.splitlines()}
    assert rows["peers"].startswith("6; ")
    assert "partition 1" in rows["faults that came"]
    assert rows["walkers"].startswith("1 born, 1 home")
    assert rows["invariants"] == "hold; looked at after every event"
    assert len(rows["trace"]) == 64


def test_the_same_seed_is_the_same_run_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    runs = [json.loads(run(capsys, *QUICK, *FAULTS, "--json")[1]) for _ in range(2)]
    for one in runs:
        assert one.pop("wall_seconds") > 0
        assert one.pop("events_per_core_second") > 0
    assert runs[0] == runs[1]
    assert runs[0]["faults_told"] == "crash=2,loss=0.01,partition@2s-4s=0.5"
    other = json.loads(run(capsys, *QUICK, *FAULTS, "--json", "--seed", "8")[1])
    assert other["trace"] != runs[0]["trace"]


def test_a_graph_file_runs_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = str(tmp_path / "line.toml")
    assert main(["topology", "make", "line", "4", "--out", graph]) == 0
    capsys.readouterr()
    code, out, _ = run(capsys, "sim", graph, "--timers", "quick", "--seconds", "3", "--json")
    assert code == 0
    assert json.loads(out)["peers"] == 4


@pytest.fixture
def trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    path = tmp_path / "run.trace"
    assert main([*QUICK, *FAULTS, "--trace", str(path)]) == 0
    capsys.readouterr()
    return path


def test_a_trace_runs_again_to_the_bit(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "replay", str(trace))
    assert code == 0
    assert out.startswith(f"the same {len(trace.read_text().splitlines()) - 2} events, trace ")
    code, out, _ = run(capsys, "replay", str(trace), "--json")
    assert json.loads(out)["same"] is True


def test_a_replay_says_where_it_parts(trace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = trace.read_text().splitlines(keepends=True)
    at, host, kind, what, _ = lines[100].split("\t")
    trace.write_text(
        "".join([*lines[:100], "\t".join([at, host, kind, what, "0\n"]), *lines[101:]])
    )
    code, _, err = run(capsys, "replay", str(trace))
    assert code == 1
    assert f"parts from this run: event 100 was {kind}" in err
    assert f"at {host}" in err

    trace.write_text("".join(lines[:300]))
    assert "event 300 was the end" in run(capsys, "replay", str(trace))[2]
    trace.write_text("".join(lines[:-1]))
    assert "cut short" in run(capsys, "replay", str(trace))[2]
    trace.write_text("".join([*lines[:-1], lines[200], lines[-1]]))
    assert "the run ends where event" in run(capsys, "replay", str(trace))[2]


@pytest.mark.parametrize("text", ["", "{}", "[1]", "no json", '{"mfd-trace": 9}', "\x80"])
def test_what_is_no_trace(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x"
    path.write_bytes(text.encode("latin-1"))
    code, _, err = run(capsys, "replay", str(path))
    assert code == 2
    assert err.count("\n") == 1
    assert "trace" in err
    assert run(capsys, "replay", str(tmp_path / "absent"))[0] == 2


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--faults", "los=1"], "--faults: there is no fault 'los'"),
        (["--faults", "partition@9s-3s"], "ends before it begins"),
        (["--generate", "rin"], "did you mean 'ring'?"),
        (["absent.toml"], "absent.toml: cannot be read"),
        (["a.toml", "--swarm"], "exclude each other"),
        (["--timers", "slow"], "known are default, quick"),
        (["--seeds", "2", "--trace", "x"], "--trace writes one run"),
        (["--trace", "/absent/x", "--seconds", "1"], "/absent/x cannot be written"),
    ],
)
def test_wrong_flags_give_one_sentence(
    args: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(capsys, "sim", *args)
    assert code == 2
    assert sentence in err
    assert err.count("\n") == 1


def test_a_broken_seed_prints_the_line_that_runs_it_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RouteTable, "lower", lambda *_: None)
    code, out, err = run(capsys, *QUICK, "--faults", "cut=6", "--seed", "3")
    assert code == 1
    assert "S9" in out
    again = err.partition("run it again: ")[2].strip()
    assert again.startswith("mfd sim --generate ring")
    assert again.endswith("--seed 3")
    code, out, err = run(capsys, *QUICK, "--seeds", "2", "--jobs", "1")
    assert code == 1
    assert "2 of 2 seeds broke an invariant" in err
    assert out.count("mfd sim ") == 2


def test_the_line_leaves_out_what_belongs_to_one_run() -> None:
    args = ["--swarm", "--seed", "4", "--seeds=9", "--jobs", "2", "--json", "--faults", "loss=1%"]
    assert _again(args, 11) == "mfd sim --swarm --faults loss=1% --seed 11"


def test_a_campaign_runs_in_a_cluster(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray itself was tried by hand; what it must give is the standard library's pool."""
    args = ["sim", "--swarm", "--peers", "6", "--seeds", "2", "--engine"]
    monkeypatch.setitem(sys.modules, "ray.util.multiprocessing", None)
    code, _, err = run(capsys, *args, "ray")
    assert (code, "pip install 'mfd[cluster]'" in err) == (2, True)
    code, _, err = run(capsys, *args, "rai")
    assert (code, "did you mean 'ray'" in err) == (2, True)
    cluster = SimpleNamespace(Pool=ThreadPool)
    monkeypatch.setitem(sys.modules, "ray.util.multiprocessing", cluster)
    code, out, _ = run(capsys, *args, "ray", "--json")
    assert code == 0
    assert [r["seed"] for r in json.loads(out)["runs"]] == [0, 1]


def test_a_campaign_runs_in_processes(capsys: pytest.CaptureFixture[str]) -> None:
    args = ["sim", "--swarm", "--peers", "6", "--seeds", "4"]
    code, out, _ = run(capsys, *args, "--jobs", "2", "--json")
    assert code == 0
    spread = json.loads(out)["runs"]
    alone = json.loads(run(capsys, *args, "--json")[1])["runs"]
    assert [r["seed"] for r in spread] == [0, 1, 2, 3]
    assert [r["trace"] for r in spread] == [r["trace"] for r in alone]
    code, out, _ = run(capsys, *args)
    assert "4, of which 4 sound" in out


def test_peers_of_an_open_network_choose_their_neighbours(
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, out, err = run(capsys, *QUICK, "--open", "--seed", "3")
    assert (code, err) == (0, "")
    rows = {line[:18].strip(): line[18:].strip() for line in out.splitlines()}
    assert rows["network"].startswith("open")
    links = int(rows["peers"].split("; ")[1].split()[0])
    assert links > 6  # the ring that names the peers has so many
    assert rows["walkers"].startswith("1 born, 1 home")
