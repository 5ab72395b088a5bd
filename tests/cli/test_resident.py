"""`mfd-peer --resident`: the model of a peer outlives its process, and never leaves it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.client import Client
from mfd.cli.main import main
from mfd.cli.plans import make_plan
from mfd.cli.sending import build, make_walker
from mfd.net.keys import KeyPair
from mfd.packet.packet import decode
from mfd.packet.safetensors import read_safetensors
from tests.cli.conftest import RunningPeer, digits

pytest.importorskip("torch", reason="a resident learns")
pytestmark = [
    pytest.mark.timeout(300),  # trainers start on one machine
    pytest.mark.skipif(find_spec("sklearn") is None, reason="the digits come with scikit-learn"),
]

PROXY = {"zoo": "mlp", "inputs": [64], "classes": 10, "hidden": [8]}
OWN = ("--resident", "mlp:inputs=64x,classes=10,hidden=24x16")
Start = Callable[..., RunningPeer]


def visit(home: RunningPeer) -> str:
    """Send a proxy to the holder and wait until it is back; return its id."""
    client = Client(home.api)
    table = {"recipe": PROXY, "names": ["digits"], "mode": "distill", "laps": 1, "seed": 1}
    plan = make_plan({**table, "learn": {"epochs": 0.5}}, bytes.fromhex(home.told["peer"]))
    walker, parts = make_walker(build(PROXY, seed=1), plan, KeyPair.from_seed(bytes(32)))
    client.post_walker(parts)
    for batch in client.follow(walker):
        kinds = {report["kind"]: report for report in batch}
        if "learning failed" in kinds:
            raise AssertionError(kinds["learning failed"]["reason"])
        if "arrived" in kinds:
            return walker
    raise AssertionError("it never came home")


def resident_of(state: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    found = read_safetensors((state / "resident" / "resident.safetensors").read_bytes())
    return {name: bytes(t.data) for name, t in found.tensors.items()}, dict(found.metadata)


def files_of(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def holds(folder: Path, content: bytes) -> bool:
    """Whether any file below has these bytes."""
    return any(content in raw for raw in files_of(folder))


def test_a_resident_outlives_its_peer_and_never_leaves_it(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules: W-22"""
    home = start("--given", "--custodian", "--state", "home")
    args: tuple[str, ...] = ("--given", "--join", home.told["join"], "--state", "holder")
    args = (*args, "--hold", digits("1/3"), *OWN)
    holder = start(*args)
    told = Client(holder.api).get("status")["resident"]
    assert (told["lessons"], told["taught"]) == (0, None)
    assert main(["status", "--api", holder.api]) == 0
    recipe = "resident mlp:inputs=64,classes=10,hidden=24x16, 8.3 KiB"
    assert f"{recipe}, not taught yet" in capsys.readouterr().out
    assert main(["status", "--api", home.api]) == 0
    assert "resident" not in capsys.readouterr().out
    first = visit(home)
    taught, notes = resident_of(tmp_path / "holder")
    assert notes["mfd.lessons"] == "1"

    holder.stop(signal.SIGKILL)
    assert resident_of(tmp_path / "holder") == (taught, notes)
    holder = start(*args)
    assert resident_of(tmp_path / "holder") == (taught, notes)
    file = tmp_path / "holder" / "resident" / "resident.safetensors"
    told = Client(holder.api).get("status")["resident"]
    assert (told["lessons"], told["taught"]) == (1, round(file.stat().st_mtime, 3))
    visit(home)
    assert main(["status", "--api", holder.api]) == 0
    assert f"{recipe}, 2 lessons, the last " in capsys.readouterr().out
    again, notes = resident_of(tmp_path / "holder")
    assert notes["mfd.lessons"] == "2"
    assert all(again[name] != raw for name, raw in taught.items() if len(raw) > 64)

    model = bytes(Client(home.api).model(first, 1 << 24))
    packet = decode(model)
    walker = {name: t for tensors in packet.tensors().values() for name, t in tensors.items()}
    shapes = {name: tuple(t.shape) for name, t in build(PROXY).state_dict().items()}
    assert {name: t.shape for name, t in walker.items()} == shapes
    # what came home lies there as it is, so what lies nowhere there has not come
    assert holds(tmp_path / "home", bytes(walker["fc1.1.weight"].data))
    found = b"".join(files_of(tmp_path / "home"))
    for version in (taught, again):
        for name, raw in version.items():
            for at in range(0, len(raw) - 63, 64):
                assert raw[at : at + 64] not in found, name
    assert "resident" not in {path.name for path in (tmp_path / "home").iterdir()}


def test_a_resident_for_which_there_is_no_memory_is_refused_at_the_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from mfd.cli.peer import main as peer

    args = ["--state", str(tmp_path / "a"), "--listen", "127.0.0.1:0", "--hold", digits("1/3")]
    code = peer([*args, *OWN, "--memory", "8KiB"])
    said = capfd.readouterr().err
    assert code == 2
    assert "the resident model takes" in said
    assert "raise its memory, or choose a smaller model" in said
    assert said.count("\n") == 1


def test_a_lesson_that_does_not_fit_is_told_at_home(
    start: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home = start("--given", "--custodian", "--state", "home")
    args: tuple[Any, ...] = ("--given", "--join", home.told["join"], "--state", "holder")
    start(*args, "--hold", digits("1/3"), *OWN, "--memory", "40KiB")
    with pytest.raises(AssertionError, match=r"a lesson with batches of .* takes .* raise its"):
        visit(home)
    assert not (tmp_path / "holder" / "resident").exists()
    assert main(["status", "--api", home.api]) == 0
    assert "distill" in capsys.readouterr().out
