"""The short form of the campaign, and proof that a campaign finds what is there to be found."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mfd.packet import Fault
from tests.fuzz import guided
from tests.fuzz.engine import Engine, Order, Result, once, summary, told
from tests.fuzz.targets import TARGETS
from tests.fuzz.watch import ROOT
from tests.fuzz.worker import Inputs

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc: needs Linux"
)

SHORT = Order(seed=1, inputs=6000, seconds=100, jobs=1)
PLANTED = Order(
    seed=1, inputs=8000, seconds=100, jobs=2, registry="tests.fuzz.planted", stuck_s=1.5,
    deaths_max=1, findings_max=11,
)  # fmt: skip


def silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def short() -> Result:
    return Engine(SHORT, silent).run()


@pytest.fixture(scope="module")
def planted() -> Result:
    return Engine(PLANTED, silent).run()


def test_nothing_is_found(short: Result) -> None:
    """Rules: P-70"""
    assert [told(found, SHORT) for found in short.found] == []
    assert short.inputs == SHORT.inputs == sum(short.outcomes.values())


def test_every_target_and_every_fault_is_reached(short: Result) -> None:
    ends = [key.partition("\t")[::2] for key in short.outcomes]
    assert {name for name, _ in ends} == {target.name for target in TARGETS}
    assert {fault.name for fault in Fault} <= {end.partition(" ")[0] for _, end in ends}


@pytest.mark.parametrize(
    "target", [t for t in TARGETS if t.weight > 2], ids=lambda target: target.name
)
def test_most_inputs_come_past_the_first_check(short: Result, target: object) -> None:
    name, first = target.name, target.first  # type: ignore[attr-defined]
    ends = {k.partition("\t")[2]: n for k, n in short.outcomes.items() if k.startswith(f"{name}\t")}
    shallow = sum(n for end, n in ends.items() if end in first)
    assert shallow < sum(ends.values()) / 2
    assert ends["ok"] > 0


def test_the_summary_tells_targets_faults_and_speed(short: Result) -> None:
    text = summary(short, SHORT)
    assert all(target.name in text for target in TARGETS)
    assert "6000 inputs in" in text
    assert "never reached" not in text


@pytest.mark.parametrize(
    ("target", "what"),
    [
        ("index", "IndexError"),  # behind right digests and encodings
        ("nan", "ZeroDivisionError"),
        ("heavy", "memory"),
        ("reserving", "MemoryError"),
        ("hanging", "hang"),
        ("waiting", "hang"),
        ("crashing", "crash"),
        ("ending", "exit"),
        ("all", "leak"),
        ("faultless", "no fault"),
        ("warning", "RuntimeWarning"),
    ],
)
def test_a_planted_bug_is_found(planted: Result, target: str, what: str) -> None:
    assert (target, what) in {(f.finding.target, f.finding.what) for f in planted.found}


def test_a_sound_target_among_them_is_not_blamed(planted: Result) -> None:
    assert "honest" not in {found.finding.target for found in planted.found}
    assert len(planted.found) == PLANTED.findings_max


def test_the_line_that_is_told_shows_the_finding_again(planted: Result) -> None:
    (found,) = (found for found in planted.found if found.finding.target == "index")
    line = found.reproduce(PLANTED)
    assert line.startswith("python -m tests.fuzz ")
    assert line in told(found, PLANTED)
    words = [sys.executable, *line.split()[1:]]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "IndexError" in done.stdout


def test_a_file_shows_it_again(tmp_path: Path) -> None:
    order = Order(inputs=400, jobs=1, registry=PLANTED.registry, targets=("index",), save=tmp_path)
    (found,) = Engine(order, silent).run().found
    assert found.file is not None
    (again,) = once(order, None, Path(found.file).read_bytes())
    assert again == found.finding


def test_a_number_names_an_input() -> None:
    first, again, other = (Inputs(seed, TARGETS) for seed in (1, 1, 2))
    made = [first.make(number) for number in range(300)]
    assert made == [again.make(number) for number in reversed(range(300))][::-1]
    assert made != [other.make(number) for number in range(300)]
    assert len({data for _, data in made}) > 250


def test_samples_stay_as_they_are() -> None:
    inputs = Inputs(3, TARGETS)
    before = repr([inputs.corpus.small[kind] for kind in inputs.corpus.small])
    for number in range(3000):
        inputs.make(number)
    assert repr([inputs.corpus.small[kind] for kind in inputs.corpus.small]) == before


def test_no_target_is_made_up() -> None:
    with pytest.raises(SystemExit, match="no target 'plam'; there are: "):
        once(Order(targets=("plam",)), 0, None)


def test_without_atheris_a_sentence_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(guided, "find_spec", lambda name: None)
    assert guided.campaign(Order()) == 2
    assert "pip install 'mfd[fuzz]'" in capsys.readouterr().err


@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris is not installed: mfd[fuzz]")
def test_the_same_targets_run_under_atheris(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.guided", "--target=index", "--seed=1"]
    command += ["--registry=tests.fuzz.planted", "--seconds=60", "--inputs=20000"]
    command.append(f"--save={tmp_path}")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "IndexError at tests/fuzz/planted.py" in done.stdout + done.stderr
    assert list(tmp_path.iterdir())
