from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from mfd.learn.errors import HoldingError
from mfd.learn.holdings import load

CIFAR = Path("../shared/data/cifar10-jpeg-12k/cifar10_jpeg_12k.npz")
Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")


def picture(shade: int, size: tuple[int, int] = (6, 4)) -> Image.Image:
    return Image.new("RGB", size, (shade, 0, 255 - shade))


def jpeg(shade: int) -> bytes:
    file = io.BytesIO()
    picture(shade).save(file, "JPEG")
    return file.getvalue()


def test_a_folder_a_label(tmp_path: Path) -> None:
    for label, shade in (("cat", 10), ("dog", 200)):
        (tmp_path / label).mkdir()
        for i in range(5):
            picture(shade).save(tmp_path / label / f"{i}.png")
    (tmp_path / "cat" / "notes.txt").write_text("no picture")
    whole = load(f"images:{tmp_path}?split=all")
    assert whole.x.shape == (10, 3, 4, 6)
    assert whole.labels() == {"0": 5, "1": 5}
    assert whole.x[0, 0, 0, 0] == np.float32(10) / np.float32(255)
    assert load(f"images:{tmp_path}?split=all&size=8&colour=grey").x.shape == (10, 1, 8, 8)
    picture(1, (9, 9)).save(tmp_path / "dog" / "odd.png")
    with pytest.raises(HoldingError, match=r"odd\.png has \[3, 9, 9\] values, .* say size=PIXELS"):
        load(f"images:{tmp_path}")


def test_what_is_no_picture_or_too_large_is_said(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(HoldingError, match="no pictures in folders below it"):
        load(f"images:{tmp_path}")
    (tmp_path / "a" / "x.png").write_bytes(b"nothing")
    with pytest.raises(HoldingError, match=r"x\.png is not a picture"):
        load(f"images:{tmp_path}")
    Image.new("1", (9_000, 2)).save(tmp_path / "a" / "x.png")
    with pytest.raises(HoldingError, match=r"x\.png is 9000 x 2 pixels"):
        load(f"images:{tmp_path}")


def test_no_program_is_started_for_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostScript is code: pillow hands it to Ghostscript, whatever the file is called."""
    (tmp_path / "a").mkdir()
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n%%EOF\n"
    (tmp_path / "a" / "x.png").write_bytes(eps)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("it runs"))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with pytest.raises(HoldingError, match=r"x\.png is not a picture that pillow reads"):
        load(f"images:{tmp_path}")


def test_packed_jpeg_files(tmp_path: Path) -> None:
    files = [jpeg(shade) for shade in (0, 100, 200, 250)]
    path = tmp_path / "packed.npz"
    arrays = {
        "train_jpeg": np.frombuffer(b"".join(files), np.uint8),
        "train_offsets": np.cumsum([0, *map(len, files)]).astype(np.uint32),
        "train_labels": np.array([0, 1, 1, 2], np.uint8),
    }
    np.savez(path, **arrays)
    found = load(f"jpeg:{path}")
    assert found.x.shape == (4, 3, 4, 6)
    assert found.classes == 3
    assert np.allclose(found.x[:, 0].mean(axis=(1, 2)) * 255, [0, 100, 200, 250], atol=4)
    with pytest.raises(HoldingError, match="no array 'test_jpeg'"):
        load(f"jpeg:{path}?split=test")
    for wrong in ([0, 5], [0, 9, 5, 20, 30], [0, 1, 2, 3, 1 << 30]):
        np.savez(path, **{**arrays, "train_offsets": np.array(wrong, np.uint32)})
        with pytest.raises(HoldingError, match="does not cut train_jpeg into 4 files"):
            load(f"jpeg:{path}")
    np.savez(path, **{**arrays, "train_jpeg": np.zeros(len(arrays["train_jpeg"]), np.uint8)})
    with pytest.raises(HoldingError, match="picture 0 is not a picture"):
        load(f"jpeg:{path}")


def test_the_cifar_subset() -> None:
    if not CIFAR.is_file():
        pytest.skip(f"{CIFAR} is not here")
    found = load(f"jpeg:{CIFAR}?split=test&limit=200")
    assert found.x.shape == (200, 3, 32, 32)
    assert set(found.labels().values()) == {20}


def test_folders_of_hugging_face_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = {"image": [picture(i) for i in range(6)], "label": [0, 1, 2, 0, 1, 2]}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c", "d"])}
    )
    pictures = datasets.Dataset.from_dict(rows, features=features)
    both = datasets.DatasetDict(train=pictures, test=pictures.select(range(3)))
    both.save_to_disk(str(tmp_path / "set"))
    address = f"hf:{tmp_path / 'set'}?split=all&scale=255"
    assert load(address).x.shape == (9, 3, 4, 6)
    assert load(f"{address}&set=test").labels() == {"0": 1, "1": 1, "2": 1}
    assert load(address).classes == 4
    with pytest.raises(HoldingError, match="no part 'valid'; there are train, test"):
        load(f"{address}&set=valid")
    with pytest.raises(HoldingError, match="no column 'picture'; there are image, label"):
        load(f"{address}&x=picture")


def test_tables_of_hugging_face_datasets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    rows = {
        "a": [0.5, 1.5, 2.5],
        "b": [1, 2, 3],
        "v": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "word": ["x", "y", "z"],
        "label": [0, 1, 1],
        "bad": [-1, 0, 1],
    }
    folder = tmp_path / "rows"
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder))
    assert load(f"hf:{folder}?split=all&x=a,b").x.tolist() == [[0.5, 1], [1.5, 2], [2.5, 3]]
    assert load(f"hf:{folder}?split=all&x=v").x.shape == (3, 2)
    for x, y, words in (
        ("word", "label", "column 'word' has no numbers"),
        ("a", "word", "column 'word' is object"),
        ("a", "bad", "has the label -1"),
    ):
        with pytest.raises(HoldingError, match=words):
            load(f"hf:{folder}?split=all&x={x}&y={y}")
    datasets.Dataset.from_dict({"a": [], "label": []}).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(HoldingError, match="it has no samples"):
        load(f"hf:{tmp_path / 'none'}?x=a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HoldingError, match="not a folder of Hugging Face datasets"):
        load(f"hf:{tmp_path / 'empty'}")
