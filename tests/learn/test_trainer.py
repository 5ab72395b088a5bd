"""The trainer as a real process over pipes, as a peer starts it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mfd.learn import Learner
from mfd.learn.trainer import read_message, write_message
from mfd.packet.objects import object_digest
from mfd.packet.task import LearnResult, LearnTask
from tests.learn.conftest import fresh, packed, plan_of

ENDLESS = 100_000.0  # epochs: ends by being told, or the test times out


class Pipe:
    """The parent's side."""

    def __init__(self, folder: Path) -> None:
        (folder / "noisy.py").write_text(
            "import sys\n"
            "import numpy as np\n"
            "print('noise at import')\n"
            "def make():\n"
            "    print('noise in a function')\n"
            "    return np.random.default_rng(1).random((64, 1, 8, 8)), np.arange(64) % 10\n"
            "def loaded():\n"
            "    slow = {'torch', 'torch._dynamo', 'sklearn'}\n"
            "    raise ValueError(sorted(slow & set(sys.modules)))\n"
        )
        self.folder = folder
        root = Path(__file__).parents[2]
        path = os.pathsep.join([str(root), str(folder)])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mfd.learn.trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.source, self.target = self.process.stdout, self.process.stdin
        self.store: dict[bytes, bytes] = {}
        self.model = packed(fresh(), self.store)
        self.objects: dict[bytes, str] = {}
        for digest, content in self.store.items():
            file = folder / digest.hex()
            file.write_bytes(content)
            self.objects[digest] = str(file)

    def send(self, request_id: int, op: str, **fields: Any) -> None:
        write_message(self.target, {"id": request_id, "op": op, **fields})

    def receive(self) -> dict[str, Any]:
        message = read_message(self.source)
        assert message is not None, "the trainer ended"
        return message

    def ask(self, request_id: int, op: str, **fields: Any) -> dict[str, Any]:
        self.send(request_id, op, **fields)
        while "progress" in (answer := self.receive()):
            assert 0 <= answer["progress"] <= 1
        assert answer["id"] == request_id
        return answer

    def hello(self) -> None:
        holdings = {
            "d": "sklearn:digits?part=2/5",
            "noisy": "py:noisy:make",
            "loaded": "py:noisy:loaded",
            "gone": "npz:gone.npz",
        }
        answer = self.ask(1, "hello", holdings=holdings, allow_py=True, threads=1)
        assert answer == {"id": 1, "ok": True}

    def task(self, name: str = "d", **learn: Any) -> LearnTask:
        return LearnTask(
            "train", plan_of(**learn), self.model, name=name, trained=((4, 6),), seed=3
        )

    def job(self, task: LearnTask) -> dict[str, Any]:
        return {"task": task.to_wire(), "objects": self.objects, "out": str(self.folder)}

    def start_endless(self, request_id: int) -> None:
        """Returns when the job is in the middle of its steps."""
        self.send(request_id, "perform", **self.job(self.task(epochs=ENDLESS)))
        message = self.receive()
        assert message["id"] == request_id
        assert 0 < message["progress"] < 1


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipe]:
    """One trainer for all tests that leave it alive; it has heard hello."""
    with started(tmp_path_factory.mktemp("trainer")) as made:
        made.hello()
        yield made


@pytest.fixture
def doomed(tmp_path: Path) -> Iterator[Pipe]:
    """A trainer of one's own, to be ended."""
    with started(tmp_path) as made:
        yield made


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Pipe]:
    made = Pipe(folder)
    yield made
    made.process.kill()
    made.process.wait()
    made.source.close()
    with contextlib.suppress(BrokenPipeError):
        made.target.close()


def test_perform_gives_what_a_learner_in_this_process_gives(pipe: Pipe) -> None:
    task = pipe.task(epochs=1)
    answer = pipe.ask(2, "perform", **pipe.job(task))
    result = LearnResult.from_wire(answer["result"])
    here: dict[bytes, bytes] = {}
    learner = Learner({"d": "sklearn:digits?part=2/5"}, threads=1)
    wanted = learner.perform(
        task, pipe.store.__getitem__, lambda made: here.update({made.digest: made.tobytes()})
    )
    assert result.layers == wanted.layers
    assert result.claims["loss"] == wanted.claims["loss"]
    for ref in result.layers:
        content = (pipe.folder / f"{ref.digest.hex()}.part").read_bytes()
        assert content == here[ref.digest]
        assert object_digest(content) == ref.digest


def test_a_trainer_loads_no_more_than_it_needs(pipe: Pipe) -> None:
    """Its first stop would wait twice as long for torch's compiler and scikit-learn."""
    assert pipe.ask(2, "perform", **pipe.job(pipe.task(epochs=0.1)))["ok"]
    assert "['torch']" in pipe.ask(3, "describe", name="loaded")["error"]


def test_describe_and_prints_of_the_owners_code_do_not_disturb_the_pipe(pipe: Pipe) -> None:
    answer = pipe.ask(2, "describe", name="noisy")
    assert answer["samples"] == 64
    assert answer["labels"]["3"] == 7
    answer = pipe.ask(3, "perform", **pipe.job(pipe.task("noisy", epochs=1)))
    assert answer["ok"]


def test_failures_are_one_sentence_and_the_trainer_goes_on(pipe: Pipe) -> None:
    assert "no file 'gone.npz'" in pipe.ask(2, "describe", name="gone")["error"]
    assert "does not know 'fly'" in pipe.ask(3, "fly")["error"]
    model = packed(fresh(8), {})  # not yet in the trainer's memory
    job = pipe.job(LearnTask("train", plan_of(), model, name="d", trained=((0, 6),)))
    assert "was not handed over" in pipe.ask(4, "perform", **job | {"objects": {}})["error"]
    lost = {ref.digest: "/nowhere" for ref in model}
    assert "cannot be read" in pipe.ask(5, "perform", **job | {"objects": lost})["error"]
    nowhere = str(pipe.folder / "no")
    short = pipe.job(pipe.task(epochs=0.1)) | {"out": nowhere}
    assert "cannot be written" in pipe.ask(6, "perform", **short)["error"]
    assert "no 'epoch'" in pipe.ask(7, "perform", **pipe.job(pipe.task(epoch=1)))["error"]
    assert "KeyError" in pipe.ask(8, "perform")["error"]
    assert pipe.ask(9, "perform", **pipe.job(pipe.task(epochs=0.1)))["ok"]


def test_broken_objects_are_one_sentence(pipe: Pipe, tmp_path: Path) -> None:
    model = packed(fresh(9), {})  # not yet in the trainer's memory
    task = LearnTask("train", plan_of(), model, name="d", trained=((0, 6),))
    for content, words in ((b"\0" * 7, "the bytes end before"), (b"", "cannot be read")):
        path = tmp_path / "broken"
        path.write_bytes(content)
        job = pipe.job(task) | {"objects": {ref.digest: str(path) for ref in model}}
        assert words in pipe.ask(2, "perform", **job)["error"]


def test_cancel_is_heard_in_the_middle_of_a_job(pipe: Pipe) -> None:
    pipe.start_endless(2)
    pipe.send(3, "perform", **pipe.job(pipe.task(epochs=ENDLESS)))  # waits behind 2
    pipe.send(4, "cancel", target=3)
    pipe.send(5, "cancel", target=2)
    answers = {}
    while len(answers) < 4:
        message = pipe.receive()
        if "progress" not in message:
            answers[message["id"]] = message
    assert answers[4]["ok"]
    assert answers[5]["ok"]
    for target in (2, 3):
        assert answers[target]["error"] == "the task was cancelled"
        assert answers[target]["cancelled"] is True
    assert pipe.ask(6, "cancel", target=2)["ok"]  # late: harmless
    assert pipe.ask(2, "perform", **pipe.job(pipe.task(epochs=0.1)))["ok"]


def test_end_of_stdin_ends_the_process_in_the_middle_of_a_job(doomed: Pipe) -> None:
    doomed.hello()
    doomed.start_endless(2)
    doomed.target.close()
    assert doomed.process.wait(timeout=20) == 0


def test_stop_ends_the_process_in_the_middle_of_a_job(doomed: Pipe) -> None:
    doomed.hello()
    doomed.start_endless(2)
    doomed.send(3, "stop")
    while (message := doomed.receive())["id"] != 3:
        assert "progress" in message
    assert message == {"id": 3, "ok": True}
    assert doomed.process.wait(timeout=20) == 0


def test_interrupt_is_left_to_the_parent(pipe: Pipe) -> None:
    pipe.process.send_signal(signal.SIGINT)
    assert pipe.ask(2, "describe", name="d")["ok"]


def test_hello_comes_first_and_a_broken_frame_ends_the_process(doomed: Pipe) -> None:
    answer = doomed.ask(1, "describe", name="d")
    assert answer == {
        "id": 1,
        "ok": False,
        "error": "the trainer was not told what this peer holds: send hello first",
    }
    doomed.target.write(b"\xff\xff\xff\xff")
    doomed.target.flush()
    assert doomed.process.wait(timeout=20) == 1
