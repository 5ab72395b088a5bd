from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mfd.learn.errors import HoldingError
from mfd.learn.holdings import Holding, check, load, parse

FASHION = Path("../shared/data/fashion-mnist")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "robot.csv"
    rows = [f"{i},{i % 7 - 3},{'left' if i % 3 else 'right'}" for i in range(60)]
    path.write_text("\n".join(["range,angle,move", *rows]) + "\n")
    return path


def test_digits_are_split_and_cut() -> None:
    train, test = load("sklearn:digits"), load("sklearn:digits?split=test")
    assert train.x.shape == (1438, 1, 8, 8)
    assert len(train.x) + len(test.x) == 1797 == len(load("sklearn:digits?split=all").x)
    assert train.x.dtype == np.float32
    assert (train.x.min(), train.x.max(), train.classes) == (0, 1, 10)
    parts = [load(f"sklearn:digits?part={i}/5&skew=0.3&seed=1") for i in range(1, 6)]
    rows = {x.tobytes() for part in parts for x in part.x}
    assert sum(len(part.x) for part in parts) == len(train.x)
    assert rows == {x.tobytes() for x in train.x}
    assert rows.isdisjoint({x.tobytes() for x in test.x})
    assert sum(train.labels().values()) == 1438
    assert list(train.labels()) == [str(i) for i in range(10)]


def test_fashion_mnist_as_published() -> None:
    if not FASHION.is_dir():
        pytest.skip(f"{FASHION} is not here")
    test = load(f"idx:{FASHION}?split=test&part=1/10&seed=2")
    assert test.x.shape == (1000, 1, 28, 28)
    assert test.classes == 10
    assert 0.2 < float(test.x.mean()) < 0.4


def test_csv_standardises_by_its_training_rows(table: Path) -> None:
    train = load(f"csv:{table}?label=move&standardise=1&split=train")
    assert np.allclose(train.x.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(train.x.std(axis=0), 1, atol=1e-6)
    test = load(f"csv:{table}?label=move&standardise=1&split=test")
    assert len(test.x) == 12
    assert not np.allclose(test.x.mean(axis=0), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("digits", "unknown scheme; known: sklearn, idx, npz, csv, text, py"),
        ("ftp:x", "unknown scheme"),
        ("sklearn:", "nothing stands after sklearn:"),
        ("sklearn:digit", "no set 'digit'; there are breast_cancer, digits"),
        ("sklearn:digits?part=6/5", "part is i/n with i from 1 to n, such as 2/5, not '6/5'"),
        ("sklearn:digits?part=0/5", "part is i/n"),
        ("sklearn:digits?part=2", "part is i/n"),
        ("sklearn:digits?skew=a", "skew is a number, not 'a'"),
        ("sklearn:digits?skew=0", "skew is a number above 0"),
        ("sklearn:digits?skew=nan", "skew is a number above 0"),
        ("sklearn:digits?seed=-1", "seed is a whole number"),
        ("sklearn:digits?split=valid", "split is train, test or all, not 'valid'"),
        ("sklearn:digits?announce=all", "announce is labels, or left out, not 'all'"),
        ("sklearn:digits?prat=1/5", "unknown option 'prat'; sklearn knows split, part"),
        ("npz:nowhere.npz", "no file 'nowhere.npz'"),
        ("csv:nowhere.csv?label=a", "no file 'nowhere.csv'"),
        ("idx:nowhere", "no train images and labels"),
        ("idx:nowhere?split=all", "split=train and split=test only"),
        ("text:nowhere", "no file 'nowhere'"),
        ("py:os", "not allowed"),
        ("sklearn:digits?shard=0", "shard is a whole number above 0, not '0'"),
        ("sklearn:digits?limit=-5", "limit is a whole number above 0, not '-5'"),
        ("sklearn:digits?quantity=0", "quantity is a number above 0"),
        ("sklearn:digits?skew=0.3&shard=2", "skew and shard cannot both decide"),
        ("jpeg:nowhere.npz", "no file 'nowhere.npz'"),
        ("images:nowhere", "no folder 'nowhere'"),
        ("hf:nowhere", "no folder 'nowhere'"),
        ("images:.?colour=red", "colour is one of rgb, grey"),
    ],
)
def test_wrong_addresses_are_one_sentence_without_loading(address: str, words: str) -> None:
    with pytest.raises(HoldingError) as caught:
        check(address)
    assert words in str(caught.value)
    assert address in str(caught.value)
    assert "\n" not in str(caught.value)


def test_arrays_that_do_not_fit_are_no_holding() -> None:
    for x, y, classes in (
        (np.zeros(3), np.zeros(2, int), 2),
        (np.zeros(0), np.zeros(0, int), 2),
        (np.zeros(2), np.array([0, 2]), 2),
        (np.zeros(2), np.array([-1, 0]), 2),
        (np.zeros(2), np.zeros(2), 2),
    ):
        with pytest.raises(HoldingError):
            Holding(x, y, classes)


def test_places_may_be_percent_encoded(tmp_path: Path) -> None:
    (tmp_path / "a?b.txt").write_bytes(bytes(200))
    assert len(load(f"text:{tmp_path}/a%3Fb.txt").x) == 3
    assert parse("text:a%20b?length=3").place == "a b"


def test_import_needs_no_torch() -> None:
    code = (
        "import sys, mfd.learn.trainer as t; from mfd.learn import Learner;"
        "Learner({'d': 'sklearn:iris'}).describe('d');"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_limit_keeps_labels_and_comes_before_parts() -> None:
    whole = load("sklearn:digits?limit=300")
    assert len(whole.x) == 300
    assert max(whole.labels().values()) - min(whole.labels().values()) <= 2
    parts = [load(f"sklearn:digits?limit=300&part={i}/3&shard=4&seed=5") for i in (1, 2, 3)]
    assert {x.tobytes() for p in parts for x in p.x} == {x.tobytes() for x in whole.x}
    assert [len(part.labels()) for part in parts] == [4, 4, 4]


def test_raw_bytes_are_those_of_the_pictures_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "p.npz"
    np.savez(path, x=np.zeros((8, 1, 4, 4), np.uint8), y=np.arange(8, dtype=np.uint8))
    assert load(f"npz:{path}?scale=255").raw_bytes == 8 * 16 + 8
    assert load("sklearn:iris?split=all").raw_bytes == 150 * 4 * 4 + 150 * 8


PLAY = "".join(f"{who}:\n{who} speaks line {i}.\n\n" for i in range(40) for who in ("Ann", "Bob"))


def test_roles_of_a_play_stay_together(tmp_path: Path) -> None:
    path = tmp_path / "play.txt"
    path.write_text(PLAY)
    parts = [load(f"text:{path}?length=16&by=role&part={i}/2") for i in (1, 2)]
    texts = [part.x.tobytes() for part in parts]
    assert sum(map(len, texts)) >= len(PLAY) - 17
    for text in texts:  # a window that begins in one role may end in the next
        assert min(text.count(b"Ann"), text.count(b"Bob")) <= 2
    with pytest.raises(HoldingError, match="2 groups cannot be cut into 3 parts"):
        load(f"text:{path}?length=16&by=role&part=1/3")
    path.write_text("nothing but prose")
    with pytest.raises(HoldingError, match="no line ends in a colon"):
        load(f"text:{path}?by=role")
