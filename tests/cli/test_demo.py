"""`mfd demo`, small: real peers, a real table, and a saved model as good as the table says."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from mfd.cli.demo import demo
from mfd.cli.errors import Misuse
from mfd.cli.main import main
from mfd.learn import zoo
from mfd.learn.holdings import load
from mfd.learn.training import measure

LINE = str(Path(__file__).parents[2] / "topologies" / "line3.toml")
PLAN = """
names = ["small/train"]
verify = ["small/test"]
laps = 2
layers_per_stop = 1
[recipe]
zoo = "mlp"
inputs = [64]
classes = 10
hidden = [24, 16]
[learn]
epochs = 2.0
"""
COMMAND = [sys.executable, "-m", "mfd.cli.main", "demo"]
# Whoever runs the tests in the background has SIGINT ignored, and children inherit that.
LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from mfd.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.toml"
    path.write_text(PLAN)
    return path


def test_the_saved_model_is_what_the_table_says(plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    flags = ["--plan", str(plan), "--folder", str(folder), "--modes", "snake,fedavg,centralised"]
    flags += ["--topology", LINE]
    done = subprocess.run(
        [*COMMAND, *flags], capture_output=True, text=True, cwd=tmp_path, check=False, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {"snake", "fedavg", "centralised"} <= rows.keys()
    told = float(re.findall(r"([\d.]+)%", rows["snake"])[0])
    module = zoo.build({"zoo": "mlp", "inputs": [64], "classes": 10, "hidden": [24, 16]})
    module.load_state_dict(load_file(str(folder / "snake.safetensors")))
    accuracy = measure(module, load("sklearn:digits?split=test"))["accuracy"]
    assert told == pytest.approx(100 * accuracy, abs=0.006)
    assert accuracy > 0.5
    assert "Traceback" not in done.stdout + done.stderr


def test_the_folder_of_somebody_else_is_not_emptied(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(Misuse, match="holds something else"):
        demo(folder=tmp_path)
    assert (tmp_path / "thesis.txt").exists()


def test_a_model_that_does_not_take_the_data_is_refused_before_a_peer_starts(
    tmp_path: Path,
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[recipe]\nzoo = "vgg11"\ninputs = [1, 8, 8]\nclasses = 10\n')
    with pytest.raises(Misuse, match=r"vgg11 does not take samples of shape 1x8x8 \(sklearn:dig"):
        demo(plan=plan, folder=tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--modes", "swim"], "--modes swim: choose from"),
        (["--data", "idx:/no/such/folder"], "/no/such/folder"),
        (["--topology", "/no/such.toml"], "/no/such.toml"),
        (["--plan", "/no/such.toml"], "plan /no/such.toml cannot be read"),
        (["--data", "sklearn:digits", "--skew", "-1"], "skew"),
    ],
)
def test_wrong_usage_is_one_sentence(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo", *flags]) == 2
    said = capsys.readouterr()
    assert sentence in said.err, said
    assert len(said.err.strip().splitlines()) == 1


def test_ctrl_c_stops_the_peers_too(plan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    plan.write_text(PLAN.replace("laps = 2", "laps = 500"))  # not home before we look
    flags = ["--plan", str(plan), "--folder", str(folder), "--modes", "walk", "--topology", LINE]
    with subprocess.Popen(
        [sys.executable, "-c", LISTENING, "demo", *flags],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("walk:"):
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert str(folder) not in listed.stdout
