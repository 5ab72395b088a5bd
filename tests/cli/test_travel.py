"""A model goes out to three real peers and comes home."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.main import main
from mfd.net.keys import KeyPair
from tests.cli.conftest import RunningPeer, program

pytest.importorskip("torch")
from safetensors.torch import load_file

RECIPE = "mlp:inputs=1x8x8,classes=10"
ARGS = [RECIPE, "--names", "digits/train", "--laps", "1", "--set", "min_holders=3"]


def _key(folder: Path) -> list[str]:
    KeyPair.load_or_create(folder / "key")
    return ["--key", str(folder / "key")]


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*argv, "--json"]) == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.fixture
def api(network: list[RunningPeer], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MFD_API", network[0].api)
    return network[0].api


def test_send_follow_get_and_trace(
    network: list[RunningPeer],
    api: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, init = tmp_path / "home.safetensors", tmp_path / "init.safetensors"
    more = ["--verify", "digits/test", "--set", "epochs=2", "--seed", "3", "--out", str(out)]
    assert main(["send", *ARGS, *more, *_key(tmp_path)]) == 0
    said = capsys.readouterr().out
    ids = [peer.told["peer"] for peer in network]
    for peer in ids:
        assert f" {peer[:8]}  lap 1/1  layers 0:3" in said  # one stop at every holder
    assert "accuracy" in said
    assert "home after 3 stops" in said
    walker = said.split()[1]

    # The model that came home has learned: the same names and shapes, other numbers.
    tensors = load_file(out)
    _export(RECIPE, 3, init)
    first = load_file(init)
    assert {k: t.shape for k, t in tensors.items()} == {k: t.shape for k, t in first.items()}
    assert any(not t.equal(first[k]) for k, t in tensors.items())

    told = _json(capsys, "trace", walker[:10])
    chosen = [r for r in told["reports"] if r["kind"] == "chosen"]
    assert [r["target"] for r in chosen][-1] == ids[0]
    assert all(r["reason"] for r in chosen)
    stops = {r["peer"] for r in told["reports"] if r["kind"] == "stop"}
    assert stops == set(ids)
    assert main(["trace", walker[:10]]) == 0
    assert "nearest of" in capsys.readouterr().out
    assert main(["trace", walker[:10], "--follow"]) == 0  # home long ago: ends at once

    packet = tmp_path / "home.mfd"
    assert main(["get", walker[:10], "--out", str(packet)]) == 0
    assert main(["packet", "verify", str(packet)]) == 0
    inside = _json(capsys, "packet", "inspect", str(packet))
    assert (inside["walker"], inside["stops"]) == (walker, 3)
    again = tmp_path / "again.safetensors"
    assert main(["get", walker[:10], "--out", str(again)]) == 0
    assert again.read_bytes() == out.read_bytes()


def _export(recipe: str, seed: int, path: Path) -> None:
    from mfd.cli.plans import parse_recipe
    from mfd.cli.sending import build
    from mfd.learn.layers import export_safetensors

    export_safetensors(path, build(parse_recipe(recipe), seed=seed))


def test_several_walkers_come_home_as_one_model(
    network: list[RunningPeer], api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules: W-42, W-49"""
    out, again = tmp_path / "home.mfd", tmp_path / "again.mfd"
    more = ["--mode", "walk", "--walkers", "2", "--set", "epochs=1", "--out", str(out)]
    assert main(["send", *ARGS, *more, *_key(tmp_path)]) == 0
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines() if line.startswith("walker ")]
    walkers = [words[1] for words in lines]
    assert len(walkers) == 2
    for walker in walkers:
        assert f"{walker[:8]} arrived" in said
    assert "with what 2 siblings have learned" in said
    assert "itself (weight" in said
    for walker in walkers:  # whichever is asked for
        assert main(["get", walker, "--out", str(again)]) == 0
        assert again.read_bytes() == out.read_bytes()


def test_reading_verbs(
    network: list[RunningPeer], api: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = [peer.told["peer"] for peer in network]
    status = _json(capsys, "status")
    assert status["peer"] == ids[0]
    assert status["join"] == network[0].told["join"]
    assert [link["peer"] for link in _json(capsys, "peers")["peers"]] == [ids[1]]
    routes = _json(capsys, "routes")["routes"]
    holders = {r["holder"]: r["hops"] for r in routes if r["name"] == "digits/train"}
    assert holders == {ids[0]: 0, ids[1]: 1, ids[2]: 2}
    for verb in ("status", "peers", "routes"):
        assert main([verb]) == 0
        assert ids[1][:8] in capsys.readouterr().out or verb == "status"


def test_a_plan_file_holds_everything_and_init_gives_the_first_tensors(
    api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init, out, plan = (tmp_path / name for name in ("i.safetensors", "o.mfd", "plan.toml"))
    _export(RECIPE, 9, init)
    plan.write_text(
        'names = ["digits/train"]\nmode = "fedavg"\nlaps = 1\nmin_holders = 3\n'
        '[learn]\nepochs = 1\n[recipe]\nzoo = "mlp"\ninputs = [1, 8, 8]\nclasses = 10\n'
    )
    argv = ["send", str(plan), "--init", str(init), "--out", str(out), *_key(tmp_path)]
    assert main(argv) == 0
    assert "3 clients" in capsys.readouterr().out
    assert main(["packet", "verify", str(out)]) == 0


def test_a_model_that_nobody_can_train_is_no_success(
    api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mfd.cli.travel._samples_at", lambda told, plan: {})  # holds none itself
    few = RECIPE.replace("classes=10", "classes=3")
    argv = ["send", few, *ARGS[1:], *_key(tmp_path), "--out", str(tmp_path / "home.mfd")]
    assert main(argv) == 1
    said = capsys.readouterr()
    assert "10 classes" in said.out
    assert "home after 0 stops" in said.out
    assert (
        said.err
        == "mfd: the model is home as it went: nobody could train it; the reasons stand above\n"
    )
    assert (tmp_path / "home.mfd").is_file()


def test_ctrl_c_while_following_leaves_the_walker_alone(
    api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = ["--verify", "digits/tset"]
    argv = [*ARGS[:-1], "min_holders=9", *wrong, "--api", api, *_key(tmp_path)]
    process = program("main", "send", *argv)
    assert process.stdout is not None
    walker = process.stdout.readline().split()[1]
    while "parked" not in process.stdout.readline():
        pass  # ends with the pipe, should it never park
    process.send_signal(signal.SIGINT)
    said, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert errors.count("\n") == 1
    assert "knows no holder of digits/tset so far" in errors
    assert errors.endswith("did you mean 'digits/test'?\n")
    assert f"mfd trace {walker[:8]} --follow --api {api}" in said
    walkers = _json(capsys, "status")["walkers"]
    assert [w["role"] for w in walkers if w["walker"] == walker] == ["own"]


def test_wrong_requests_end_with_one_sentence(
    api: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.mfd"
    bad.write_bytes(b"nothing")
    key = _key(tmp_path)
    cases = [
        (2, ["send", *key], "a recipe"),
        (2, ["send", RECIPE, *key], "--names"),
        (2, ["send", "rnn:inputs=8", "--names", "a", *key], "no recipe 'rnn'"),
        (2, ["send", RECIPE, "--names", "a", "--mode", "snak", *key], "'snake'"),
        (2, ["send", RECIPE, "--names", "a", "--set", "epoch=1", *key], "epochs"),
        (2, ["send", RECIPE, "--names", "a", "--set", "scales=2", *key], "width is above 0 and at"),
        (2, ["send", RECIPE, "--names", "a", "--set", "scales=1:9", *key], "cannot be trained"),
        (
            2,
            ["send", "vgg11:inputs=1x8x8,classes=10", "--names", "a", *key],
            "vgg11 does not take samples of shape 1x8x8 (its recipe's own inputs): it takes",
        ),
        (
            2,
            ["send", "mlp:inputs=9x,classes=10", "--names", "digits", *key],
            "shape 1x8x8 (digits/train at the peer asked)",
        ),
        (2, ["send", RECIPE, "--names", "a", "--set", "epochs", *key], "KEY=VALUE"),
        (
            2,
            ["send", RECIPE, "--names", "a", "--laps", "0", *key],
            "laps are a whole number from 1, not 0",
        ),
        (2, ["send", RECIPE, "--names", "a", "--init", "random", *key], "is for --hf"),
        (2, ["send", RECIPE, "--names", "a", "--hf", str(tmp_path), *key], "two models are given"),
        (2, ["send", RECIPE, "--names", "a", "--out", "m.pt", *key], ".safetensors"),
        (2, ["send", RECIPE, "--names", "a", "--out", "home", *key], "as home.safetensors"),
        (2, ["send", RECIPE, "--names", "a", "--set", "body=2:9", *key], "has layers 0:3"),
        (2, ["send", "m.safetensors", "--names", "a", *key], "--init FILE.safetensors"),
        (2, ["trace", ""], "is empty"),
        (2, ["get", "", "--out", "x.mfd"], "is empty"),
        (2, ["trace", "00", "--out", "x.mfd"], "--out needs --follow"),
        (2, ["status", "--token-file", "none"], "none cannot be read: No such file"),
        (2, ["send", "no.toml", *key], "no.toml"),
        (2, ["send", RECIPE, "--names", "a", "--init", str(bad), *key], "bad.mfd"),
        (2, ["send", RECIPE, "--names", "a", "--key", str(bad)], "chmod 600"),
        (1, ["get", "0000", "--out", str(tmp_path / "x.mfd")], "no walker"),
        (1, ["trace", "ffff"], "no walker"),
        (1, ["status", "--api", "http://127.0.0.1:9"], "no peer answers"),
        (1, ["status", "--api", "127.0.0.1"], "at 127.0.0.1, which names no port: "),
        (2, ["status", "--api", "ftp://127.0.0.1"], "http://HOST:PORT"),
        (1, ["packet", "inspect", str(bad)], "not a packet"),
        (1, ["packet", "verify", str(tmp_path / "none.mfd")], "none.mfd"),
        (2, ["nothing"], "nothing"),
    ]
    for code, argv, part in cases:
        capsys.readouterr()
        assert main(argv) == code, argv
        said = capsys.readouterr().err
        assert part in said, argv
        assert "Traceback" not in said
        assert (code == 2 and argv == ["nothing"]) or said.count("\n") == 1, said
