"""Read whole data sets from files: bytes to arrays, with sizes checked before memory is taken.

Rules of this file: numpy only; nothing read is ever executed, but for the owner's own function.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import importlib.util
import sys
import zipfile
from collections.abc import Mapping, Sequence
from itertools import islice
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from mfd.learn.errors import HoldingError

__all__ = [
    "Table",
    "idx_paths",
    "read_csv",
    "read_idx",
    "read_npz",
    "read_py",
    "read_sklearn",
    "read_text",
    "text_roles",
]

Array = np.ndarray[Any, Any]
Table = tuple[Array, Array, int]  # x, y, number of classes
SET_BYTES_MAX = 8 << 30  # one data set in memory
CSV_ROWS_MAX = 20_000_000
CSV_FIELD_MAX = 1 << 20  # characters


SKLEARN_FILES = {"wine": "wine_data.csv", "digits": "digits.csv.gz"}  # others: NAME.csv


def read_sklearn(name: str) -> Table:
    """One of the sets that come with scikit-learn; digits as 1x8x8 pictures from 0 to 1.

    Its files are read without it: loading scikit-learn takes longer than a peer's first stop.
    """
    package = importlib.util.find_spec("sklearn")
    places = (package and package.submodule_search_locations) or ()
    file = SKLEARN_FILES.get(name, f"{name}.csv")
    paths = [Path(place, "datasets", "data", file) for place in places]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:  # it keeps them elsewhere, or packed
        return _ask_sklearn(name)
    lines = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    rows = list(csv.reader(lines.decode().splitlines()))
    if name == "digits":
        table = np.array(rows, np.float64)
        return _pictures_of_digits(table[:, :-1]), table[:, -1].astype(np.int64), 10
    head, *rows = rows  # samples, features, names of the classes
    table = np.array(rows, np.float64)
    return table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64), len(head) - 2


def _ask_sklearn(name: str) -> Table:
    from sklearn import datasets

    found = getattr(datasets, f"load_{name}")()
    x = _pictures_of_digits(found.data) if name == "digits" else found.data.astype(np.float32)
    return x, np.asarray(found.target, np.int64), len(found.target_names)


def _pictures_of_digits(x: Array) -> Array:
    return (x.astype(np.float32) / np.float32(16)).reshape(-1, 1, 8, 8)


def idx_paths(folder: Path, split: str) -> tuple[Path | None, Path | None]:
    """The image and the label file of a split, under the names of MNIST; None where absent."""
    stem = "train" if split == "train" else "t10k"
    found = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        names = [f"{stem}-{kind}", f"{stem}-{kind}.gz", f"{stem}-{kind.replace('-idx', '.idx')}"]
        paths = [folder / name for name in names]
        found.append(next((path for path in paths if path.is_file()), None))
    return found[0], found[1]


def read_idx(folder: Path, split: str) -> Table:
    """Images as (samples, 1, height, width) from 0 to 255, and their labels."""
    images, labels = idx_paths(folder, split)
    assert images is not None
    assert labels is not None
    x, y = _read_idx_file(images), _read_idx_file(labels)
    if x.ndim != 3 or y.ndim != 1:
        raise HoldingError(f"{images.name} or {labels.name} does not hold images and labels")
    return x[:, None], y.astype(np.int64), int(y.max(initial=0)) + 1


def _open(path: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(path) if path.suffix == ".gz" else path.open("rb"))


def _read_idx_file(path: Path) -> Array:
    with _open(path) as file:
        head = file.read(4)
        if len(head) < 4 or head[:3] != b"\0\0\x08" or not 1 <= head[3] <= 4:
            raise HoldingError(f"{path.name} is not an IDX file of unsigned bytes")
        shape = np.frombuffer(_exactly(file, 4 * head[3], path), ">u4").tolist()
        size = prod(shape)
        if size > SET_BYTES_MAX:
            raise HoldingError(f"{path.name} declares {size} values; more than fit in one data set")
        return np.frombuffer(_exactly(file, size, path), np.uint8).reshape(shape)


def _exactly(file: IO[bytes], size: int, path: Path) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise HoldingError(f"{path.name} ends before the size that it declares")
    return data


def read_npz(path: Path, options: Mapping[str, str]) -> Table:
    """Arrays x and y of an .npz file (other names by option); pickled arrays are refused."""
    names = [options.get("x", "x"), options.get("y", "y")]
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename.removesuffix(".npy"): info.file_size for info in archive.infolist()}
    for name in names:
        if name not in sizes:
            raise HoldingError(f"no array {name!r} in it; there are {', '.join(sizes)}")
        if sizes[name] > SET_BYTES_MAX:
            raise HoldingError(f"array {name!r} of {sizes[name]} bytes is larger than one data set")
    with np.load(path, allow_pickle=False) as archive:
        x, y = archive[names[0]], archive[names[1]]
    if x.dtype.kind == "b":
        x = x.astype(np.float32)
    y, classes = _classes(y, options)
    return x, y, classes


def _classes(y: Array, options: Mapping[str, str]) -> tuple[Array, int]:
    """Labels as 0..n-1: whole numbers stay as they are, words go in sorted (or the given) order."""
    given = options.get("classes", "")
    if y.dtype.kind in "iu":
        if given and not given.isdecimal():
            raise HoldingError(f"classes is a number where labels are numbers, not {given!r}")
        return y, int(given) if given else int(y.max(initial=0)) + 1
    words = y.astype(str)
    if given and not given.isdecimal():
        order = given.split(",")
    else:
        order = sorted(set(words.ravel().tolist()))
    places = {word: i for i, word in enumerate(order)}
    strange = next((word for word in words.ravel().tolist() if word not in places), None)
    if strange is not None:
        raise HoldingError(f"label {strange!r} is not among the classes {', '.join(order)}")
    mapped = np.array([places[word] for word in words.ravel().tolist()], np.int64)
    return mapped.reshape(y.shape), max(len(order), int(given) if given.isdecimal() else 0)


def read_csv(path: Path, options: Mapping[str, str]) -> Table:
    """A table with a header row: `label` names the class column, `drop` columns to leave out."""
    csv.field_size_limit(CSV_FIELD_MAX)
    with _open(path) as raw:
        rows = csv.reader(line.decode("utf-8-sig") for line in raw)
        header = next(rows, [])
        label = options["label"]
        dropped = [name for name in options.get("drop", "").split(",") if name]
        for name in (label, *dropped):
            if name not in header:
                have = f"there are {', '.join(header)}" if header else "it is empty"
                raise HoldingError(f"no column {name!r}; {have}")
        at = header.index(label)
        kept = [i for i, name in enumerate(header) if i != at and name not in dropped]
        values, labels = _read_rows(rows, header, at, kept)
    y = np.array(labels)
    try:
        y = np.array(labels, dtype=np.int64)
        if not options.get("classes"):
            y = y if y.min(initial=0) >= 0 else np.array(labels)
    except ValueError:
        pass
    y, classes = _classes(y, options)
    return values, y, classes


def _read_rows(
    rows: Any, header: Sequence[str], at: int, kept: Sequence[int]
) -> tuple[Array, list[str]]:
    labels: list[str] = []
    blocks: list[Array] = []
    count = 0
    while block := list(islice(rows, 65_536)):
        count += len(block)
        if count > CSV_ROWS_MAX or count * len(kept) * 4 > SET_BYTES_MAX:
            raise HoldingError(f"more than {CSV_ROWS_MAX} rows or {SET_BYTES_MAX} bytes of values")
        numbers = np.empty((len(block), len(kept)), np.float32)
        for i, row in enumerate(block):
            line = count - len(block) + i + 2
            if len(row) != len(header):
                raise HoldingError(f"line {line} has {len(row)} fields, the header {len(header)}")
            labels.append(row[at])
            try:
                numbers[i] = [float(row[k]) for k in kept]
            except ValueError as exc:
                raise HoldingError(f"line {line}: {exc}; leave such columns out by drop=") from None
        blocks.append(numbers)
    if not blocks:
        raise HoldingError("it has no rows")
    return np.concatenate(blocks), labels


def read_text(path: Path, length: int, *, by: str = "") -> Table:
    """Bytes in windows of `length`, and the same windows one byte later.

    `by` "role": the text of a play in order of its roles instead of its scenes.
    """
    size = path.stat().st_size
    if size > SET_BYTES_MAX:
        raise HoldingError(f"{size} bytes are larger than one data set")
    tokens = _by_role(path)[0] if by else np.fromfile(path, np.uint8)
    count = (len(tokens) - 1) // length
    if count < 1:
        raise HoldingError(f"{size} bytes are too few for one window of {length}")
    shape = (count, length)
    x = tokens[: count * length].reshape(shape)
    return x, tokens[1 : count * length + 1].reshape(shape), 256


def text_roles(path: Path, length: int) -> Array:
    """The number of the role in whose lines each window of `read_text(by="role")` starts."""
    tokens, starts = _by_role(path)
    windows = np.arange((len(tokens) - 1) // length) * length
    return np.searchsorted(starts, windows, side="right") - 1


def _by_role(path: Path) -> tuple[Array, Array]:
    """A play, role by role, and where each role starts.

    Speeches are parted by an empty line; the first line of each is the role's name and a colon.
    """
    said: dict[bytes, list[bytes]] = {}
    for speech in path.read_bytes().replace(b"\r\n", b"\n").split(b"\n\n"):
        name, colon, _ = speech.strip(b"\n").partition(b":\n")
        if colon and b"\n" not in name:
            said.setdefault(name, []).append(speech.strip(b"\n") + b"\n\n")
    if not said:
        raise HoldingError("no line ends in a colon and begins what a role says")
    texts = [b"".join(said[name]) for name in sorted(said)]
    starts = np.cumsum([0, *map(len, texts[:-1])])
    return np.frombuffer(b"".join(texts), np.uint8), starts


def read_py(place: str) -> Table:
    """Call the owner's function: it returns (x, y), or (x, y, classes)."""
    module, _, function = place.partition(":")
    if "" not in sys.path:  # the owner's module may lie in the folder where the peer was started
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError) as exc:
        raise HoldingError(f"{exc}") from exc
    if not isinstance(made, tuple) or len(made) not in (2, 3):
        raise HoldingError(f"{place} returned no (x, y) and no (x, y, classes)")
    y = np.asarray(made[1])
    classes = int(made[2]) if len(made) == 3 else int(y.max(initial=0)) + 1
    return np.asarray(made[0]), y, classes
