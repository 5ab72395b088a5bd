"""The examples run and say what they promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(name: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        capture_output=True,
        text=True,
        check=False,
        env=env,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packet_alone() -> None:
    lines = run("packet_alone.py").splitlines()
    assert len(lines) == 3
    assert "with only the head" in lines[2]


def test_snake_in_ten_lines() -> None:
    """A real snake in the simulator learns digits: the last lap is right nine times of ten."""
    out = run("snake_in_ten_lines.py")
    route, accuracy, _ = out.splitlines()
    assert route.count("->") == 14
    assert float(accuracy.rstrip("]").split()[-1].strip("'")) > 0.9, out
