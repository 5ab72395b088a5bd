"""The examples run and say what they promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(name: str, *arguments: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(name: str, *arguments: str, stops: int) -> str:
    """What it says beside its progress, which has a line for each stop."""
    lines = run(name, *arguments).splitlines()
    progress = [line for line in lines if line.startswith("    ")]
    assert sum(" layers " in line and " loss " in line for line in progress) == stops
    assert any(" accuracy " in line for line in progress)
    return "\n".join(line for line in lines if line not in progress)


def test_embed_codec() -> None:
    lines = run("embed_codec.py").splitlines()
    assert lines[-2:] == [
        "encoder: 3 of 4 chunks good, bad: [1]",
        "head: 1 of 1 chunks good, bad: []",
    ]
    assert "3 layers came as 6 chunks" in lines[-3]


def test_snake_in_ten_lines() -> None:
    """A real snake in the simulator learns digits: the last lap is right nine times of ten."""
    out = told("snake_in_ten_lines.py", stops=15)
    route, accuracy, _ = out.splitlines()
    assert route.count("->") == 14
    assert float(accuracy.rstrip("]").split()[-1].strip("'")) > 0.9, out


def test_lora_snake() -> None:
    """The base travels once to each peer, adapters alone after that, and the model learns."""
    out = told("lora_snake.py", "--laps", "2", "--epochs", "1", stops=8)
    _, layers, came, perplexity = out.splitlines()
    assert layers == "10 layers, of which 6 are frozen"
    first, *others = json.loads(came[came.index("[") :])
    assert first == 0
    assert min(others[:3]) > 3 * max(others[3:])
    before, *_, after = json.loads(perplexity[perplexity.index("[") :].replace("'", ""))
    assert after < before / 4


def test_own_model_snake() -> None:
    """Orders, a body of one's own choice and memory budgets, on a module that is in no zoo."""
    out = told("own_model_snake.py", "--short", stops=24).splitlines()
    lines = [line for i, line in enumerate(out) if i % 3]  # without the titles
    layers = {text.partition(": layers ")[0]: text.split()[-6:] for text in lines[::2]}
    assert layers["one block a lap"] == ["0:1+4:5"] * 3 + ["1:2+4:5"] * 3
    assert layers["there and back, the middle alone"] == ["1:2"] * 3 + ["2:3"] * 3
    assert layers["all blocks at each stop, one at a time"] == ["0:5"] * 6
    by_memory = layers["as memory allows"]
    assert by_memory[0] == "0:5"  # no limit there
    assert by_memory[1] != "0:5"
    assert by_memory[2] != "0:5"
    assert float(lines[1].split()[1].strip(",")) > 0.25


def test_three_architectures() -> None:
    """An MLP, a CNN and a ViT that teach each other know more than each alone; short form."""
    *peers, _ = told("three_architectures.py", "3", stops=9).splitlines()
    pairs = [[float(part.split()[-1]) for part in line.split(",")] for line in peers]
    gains = [taught - alone for alone, taught in pairs]
    assert len(gains) == 3
    assert min(gains) > -0.03, peers
    assert sum(gains) / 3 > 0.05, peers
