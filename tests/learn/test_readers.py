from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mfd.learn.errors import HoldingError
from mfd.learn.holdings import SKLEARN, load
from mfd.learn.readers import SKLEARN_FILES, read_sklearn


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "robot.csv"
    rows = [f"{i},{i % 7 - 3},{'left' if i % 3 else 'right'}" for i in range(60)]
    path.write_text("\n".join(["range,angle,move", *rows]) + "\n")
    return path


def write_idx(folder: Path, values: np.ndarray, name: str) -> None:
    head = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    (folder / name).write_bytes(head + values.astype(np.uint8).tobytes())


def test_idx_reads_what_is_written_and_refuses_what_lies(tmp_path: Path) -> None:
    images = np.arange(5 * 6).reshape(5, 2, 3)
    write_idx(tmp_path, images, "train-images-idx3-ubyte")
    write_idx(tmp_path, np.array([0, 1, 2, 1, 0]), "train-labels-idx1-ubyte")
    found = load(f"idx:{tmp_path}")
    assert np.allclose(found.x[:, 0] * 255, images)
    assert found.y.tolist() == [0, 1, 2, 1, 0]
    liar = bytes([0, 0, 8, 3]) + np.array([2**31, 2**20, 2**20], ">u4").tobytes()
    for content, words in ((liar, "declares"), (liar[:9], "ends before"), (b"PK", "not an IDX")):
        (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(HoldingError, match=words):
            load(f"idx:{tmp_path}")


@pytest.mark.parametrize("name", SKLEARN)
def test_the_sets_of_scikit_learn_are_what_it_says_itself(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y, classes = read_sklearn(name)
    monkeypatch.setitem(SKLEARN_FILES, name, "nowhere.csv")
    asked, labels, names = read_sklearn(name)
    assert (x.shape, x.dtype, x.tobytes()) == (asked.shape, asked.dtype, asked.tobytes())
    assert (y.dtype, y.tolist(), classes) == (labels.dtype, labels.tolist(), names)


def test_csv_maps_words_in_sorted_order(table: Path) -> None:
    found = load(f"csv:{table}?label=move")
    assert found.classes == 2
    assert found.y.tolist() == [0 if i % 3 else 1 for i in range(60)]
    assert found.x[5].tolist() == [5, 2]
    given = load(f"csv:{table}?label=move&classes=stop,right,left&drop=angle")
    assert given.classes == 3
    assert given.y.tolist() == [2 if i % 3 else 1 for i in range(60)]
    assert given.x.shape == (60, 1)


def test_npz_and_text(tmp_path: Path) -> None:
    x, y = np.arange(24).reshape(12, 2), np.array(["b", "a", "c"] * 4)
    np.savez(tmp_path / "a.npz", images=x, labels=y)
    found = load(f"npz:{tmp_path / 'a.npz'}?x=images&y=labels&scale=2")
    assert found.x.tolist() == (x / 2).tolist()
    assert found.y.tolist() == [1, 0, 2] * 4
    (tmp_path / "t.txt").write_bytes(bytes(range(100)))
    text = load(f"text:{tmp_path / 't.txt'}?length=9")
    assert text.x.shape == text.y.shape == (11, 9)
    assert np.array_equal(text.x + 1, text.y)
    assert text.classes == 256
    assert text.labels() == {}


def test_npz_never_unpickles(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (pytest.fail, ("it was executed",))

    np.savez(tmp_path / "a.npz", x=np.array([Trap()] * 2), y=np.array([0, 1]))
    with pytest.raises(HoldingError, match="cannot be read"):
        load(f"npz:{tmp_path / 'a.npz'}")


def test_the_owners_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner_data.py").write_text(
        "import numpy as np\n"
        "def make():\n    return np.zeros((40, 3)), np.arange(40) % 4\n"
        "def wrong():\n    return 5\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = load("py:owner_data:make?part=1/2", allow_py=True)
    assert found.x.shape == (20, 3)
    assert found.x.dtype == np.float32
    with pytest.raises(HoldingError, match="not allowed"):
        load("py:owner_data:make")
    with pytest.raises(HoldingError, match="returned no"):
        load("py:owner_data:wrong", allow_py=True)
    with pytest.raises(HoldingError, match="no attribute 'gone'"):
        load("py:owner_data:gone", allow_py=True)


def test_what_only_reading_shows_is_one_sentence_too(tmp_path: Path, table: Path) -> None:
    (tmp_path / "bad.npz").write_bytes(b"no zip")
    (tmp_path / "short.csv").write_text("a,b\n1,2\n3\n")
    (tmp_path / "words.csv").write_text("a,b\n1,2\nx,4\n")
    (tmp_path / "empty.csv").write_text("a,b\n")
    (tmp_path / "nothing.csv").touch()
    np.savez(tmp_path / "half.npz", x=np.zeros(3))
    for address, words in (
        (f"csv:{tmp_path}/nothing.csv?label=speed", "no column 'speed'; it is empty"),
        (f"csv:{table}?label=speed", "no column 'speed'; there are range, angle, move"),
        (f"csv:{table}?label=move&classes=a,b", "label 'right' is not among the classes a, b"),
        (f"csv:{table}?label=range", "line 2: could not convert"),
        (f"npz:{tmp_path}/bad.npz", "cannot be read"),
        (f"npz:{tmp_path}/half.npz", "no array 'y' in it; there are x"),
        (f"csv:{tmp_path}/short.csv?label=b", "line 3 has 1 fields, the header 2"),
        (f"csv:{tmp_path}/words.csv?label=b", "line 3: could not convert"),
        (f"csv:{tmp_path}/empty.csv?label=b", "no rows"),
        ("sklearn:iris?part=1/4000", "cannot be cut into 4000 parts"),
    ):
        with pytest.raises(HoldingError) as caught:
            load(address)
        assert words in str(caught.value), address
        assert address in str(caught.value)
