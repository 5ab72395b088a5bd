"""`mfd topology`: drawn in the terminal, as a picture, made, checked; and the graphs that ship."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from mfd.cli.drawing import draw_text
from mfd.cli.main import main
from mfd.learn.holdings import check
from mfd.topology import KINDS, Edge, Node, Topology, load, make

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "topologies").glob("*.toml"))
REAL = sorted((ROOT / "../shared/data").glob("*.graphml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_what_ships_is_sound_says_what_it_is_for_and_is_what_its_command_makes(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = path.read_text().splitlines()[:2]
    assert first.startswith("# ")
    assert len(first) > 40
    graph = load(path)
    assert graph.check() == []
    addresses = [data for node in graph.nodes.values() for data in node.hold.values()]
    assert addresses
    for address in addresses:
        check(address)
    assert path.name in (ROOT / "topologies/README.md").read_text()
    if second.startswith("# mfd "):
        monkeypatch.chdir(tmp_path)
        assert main(shlex.split(second.removeprefix("# mfd "))) == 0
        assert (tmp_path / path.name).read_text() == path.read_text()


def test_shipped_graphs_use_ports_of_their_own() -> None:
    used = [node.address for path in SHIPPED for node in load(path).nodes.values()]
    assert len(set(used)) == len(used)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_made_checked_and_drawn(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "g.toml")
    data = ["--hold", "d=sklearn:digits?part={i}/{n}", "--hold", "t=sklearn:digits?split=test"]
    assert main(["topology", "make", kind, "9", "--out", out, "--holders", "3", *data]) == 0
    assert main(["topology", "check", out]) == 0
    held = [node.hold for node in load(out).nodes.values() if node.hold]
    assert [h["d"][-3:] for h in held] == ["1/3", "2/3", "3/3"]
    assert [list(h) for h in held] == [["d"], ["d"], ["d", "t"]]
    capsys.readouterr()
    assert main(["topology", "show", out]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in load(out).nodes)
    assert "3 holder(s)" in said
    assert "6 relay(s)" in said


def test_drawing_shows_links_and_roles() -> None:
    nodes = {"left": Node(hold={"d": "x"}), "mid": Node(), "right": Node(custodian=True)}
    graph = Topology(nodes, (Edge("left", "mid"), Edge("mid", "right")))
    drawn = draw_text(graph, 60, 5)
    signs = [sign for sign in drawn if sign in "\u25cf\u25cb\u25c6"]
    assert signs in (["\u25cf", "\u25cb", "\u25c6"], ["\u25c6", "\u25cb", "\u25cf"])
    assert sum(0x2800 < ord(sign) < 0x2900 for sign in drawn) > 20
    plain = draw_text(graph, 60, 5, plain=True)
    assert plain.isascii()
    assert sorted(set("*o#") & set(plain)) == ["#", "*", "o"]
    assert all(len(line) <= 60 for line in drawn.splitlines())
    unlinked = draw_text(Topology(nodes), 60, 9)
    assert not any(0x2800 < ord(sign) < 0x2900 for sign in unlinked)


def test_large_graphs_are_drawn_without_names_and_lists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "g.json")
    assert main(["topology", "make", "small-world", "200", "--out", out, "--port", "0"]) == 0
    capsys.readouterr()
    assert main(["topology", "show", out]) == 0
    said = capsys.readouterr().out
    assert "peer" not in said
    assert "--json lists all" in said
    assert draw_text(Topology({}), 40, 10) == ""


@pytest.mark.parametrize("ending", ["svg", "png", "pdf"])
def test_pictures(ending: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / f"ring.{ending}"
    args = ["topology", "show", str(ROOT / "topologies/ring10.toml"), "--out", str(out)]
    assert main(args) == 0
    head = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[ending]
    assert out.read_bytes().startswith(head)
    if ending == "svg":
        assert out.read_text().count("peer0") >= 9


def test_without_matplotlib_one_sentence_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    graph = str(ROOT / "topologies/line3.toml")
    assert main(["topology", "show", graph, "--out", str(tmp_path / "x.svg")]) == 1
    said = capsys.readouterr().err
    assert "pip install 'mfd[draw]'" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["show", "FILE", "--out", "x.bmp"], ".svg, .png, .pdf"),
        (["show", "ring:5"], "`mfd topology make ring 5 --out ring5.toml` writes it"),
        (["make", "ring", "4", "--out", "x.toml", "--holders", "5"], "--holders 5"),
        (["make", "ring", "4", "--out", "x.toml", "--hold", "nothing"], "NAME=ADDRESS"),
        (["make", "knot", "4", "--out", "x.toml"], "barbell"),
    ],
)
def test_wrong_wishes_are_one_sentence(
    args: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line3 = str(ROOT / "topologies/line3.toml")
    assert main(["topology", *(line3 if arg == "FILE" else arg for arg in args)]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


@pytest.mark.skipif(not REAL, reason="no maps of real networks in ../shared/data")
@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_real_networks_with_parallel_links_and_gaps_are_read_checked_and_drawn(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["topology", "check", str(path), "--no-addresses"]) == 0
    assert main(["topology", "show", str(path)]) == 0
    assert "relay(s)" in capsys.readouterr().out


def test_a_barbell_is_two_cliques_on_a_line() -> None:
    graph = make("barbell", 12)
    degrees = sorted(len(graph.neighbours(name)) for name in graph.nodes)
    assert degrees == [2] * 4 + [3] * 6 + [4] * 2


def test_a_check_is_read_by_programs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "graph.toml"
    path.write_text('[nodes.a]\n[nodes.b]\n[[edges]]\na = "a"\nb = "b"\n')
    assert main(["topology", "check", str(path), "--no-addresses", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"sound": True, "nodes": 2, "edges": 1, "problems": []}
    path.write_text("[nodes.a]\n[nodes.b]\n")
    assert main(["topology", "check", str(path), "--no-addresses", "--json"]) == 1
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert not told["sound"]
    assert told["problems"] == ["The network falls into 2 islands: a; b."]
    assert "1 problem(s)" in said.err
