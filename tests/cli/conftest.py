"""Real peers in processes of their own, over loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# a shell that starts the tests in the background has SIGINT ignored, and so would their children
PROGRAM = (
    "import signal, sys; signal.signal(2, signal.default_int_handler); "
    "from mfd.cli.{0} import main; sys.exit(main())"
)
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def program(name: str, *args: str, cwd: Path | None = None) -> subprocess.Popen[str]:
    """Start `mfd-peer` (peer) or `mfd` (main)."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(name), *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        cwd=cwd,
    )


class RunningPeer:
    """An `mfd-peer --json` that has told its start."""

    def __init__(self, *args: str, cwd: Path) -> None:
        self.process = program("peer", "--json", *args, cwd=cwd)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.told: dict[str, Any] = json.loads(line)
        self.api: str = self.told["status"].rstrip("/")
        self.address = self.api.removeprefix("http://")
        self._drain = threading.Thread(target=self.process.stdout.read)
        self._drain.start()  # a full pipe would hold the peer up

    def stop(self, number: int = signal.SIGINT, seconds: float = 10) -> int:
        """Stop it; return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(seconds)
        self._drain.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
        return code


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., RunningPeer]]:
    """Start peers that end with the test."""
    running: list[RunningPeer] = []

    def start_one(*args: str, cwd: Path = tmp_path) -> RunningPeer:
        running.append(RunningPeer(*args, cwd=cwd))
        return running[-1]

    yield start_one
    for peer in running:
        if peer.process.stdout is not None and not peer.process.stdout.closed:
            peer.stop()


def digits(part: str) -> str:
    return f"digits/train=sklearn:digits?part={part}"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningPeer]]:
    """Three holders in a line; the last one can measure too."""
    folder = tmp_path_factory.mktemp("network")
    first = RunningPeer("--given", "--hold", digits("1/3"), cwd=folder)
    join = ("--given", "--join", first.told["join"])
    second = RunningPeer(*join, "--hold", digits("2/3"), cwd=folder)
    measure = ("--hold", "digits/test=sklearn:digits?split=test")
    join = ("--given", "--join", second.address)
    third = RunningPeer(*join, "--hold", digits("3/3"), *measure, cwd=folder)
    peers = [first, second, third]
    yield peers
    for peer in peers:
        peer.stop()
