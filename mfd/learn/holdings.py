"""Data by address: what a peer holds, cut and loaded where the training happens.

    sklearn:digits?part=2/5&skew=0.3&seed=1     a set that comes with scikit-learn
    idx:FOLDER?split=test                       files of MNIST and Fashion-MNIST as published
    npz:FILE?x=images&y=labels&scale=255        arrays; without a scale, whole numbers are tokens
    csv:FILE?label=COLUMN&standardise=1         a table with a header row, .gz or not
    tokens:FILE?tokenizer=PLACE&length=64       text in tokens, for language models; see texts.py
    tsv:FILE?tokenizer=PLACE&text=0&label=1     sentences with labels, in tokens
    images:FOLDER?size=32                       pictures, a folder a label
    jpeg:FILE                                   JPEG files packed into one .npz
    hf:FOLDER?x=image&y=label                   as saved by Hugging Face datasets (save_to_disk)
    text:FILE?length=64                         bytes, for language models; by=role keeps speakers
    py:MODULE:FUNCTION                          the owner's own function, where the owner allows it

Every scheme also takes `split=train|test|all` (a fixed stratified 80/20 cut; idx, jpeg: the
published files), `limit` (so many samples of the split, labels as in the whole), `part=i/n`, and
how parts differ, evenly at random where nothing is said: `skew` (Dirichlet alpha of labels),
`shard` (labels a part), `quantity` (Dirichlet alpha of sizes), with a `seed`. `announce=labels`
lets the peer tell the network how its labels are distributed, rounded to 1/20; `tell=classes` lets
models take along the mean and the main variations of each class with 50 samples or more, for plans
with replay. Without them nothing is told.
Rules of this file: numpy only; scikit-learn is imported on use; sizes are checked before reading.
"""

from __future__ import annotations

import csv
import importlib.util
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import numpy as np

from mfd.learn import pictures, readers, texts
from mfd.learn.errors import HoldingError
from mfd.learn.partition import Cut, partition, partition_groups, split_indices

__all__ = ["Address", "Holding", "check", "load", "parse"]

Array = np.ndarray[Any, Any]
TOLD = {"announce": "labels", "tell": "classes"}  # what an owner may allow to be told
SHARED = ("split", "part", "skew", "seed", *TOLD, "limit", "shard", "quantity")
SKLEARN = ("breast_cancer", "digits", "iris", "wine")
PARTS_MAX = 100_000
PUBLISHED = ("idx", "jpeg")  # schemes whose files say what is for training and what for tests
PIXELS = ("idx", "jpeg", "images")  # schemes of whole numbers from 0 to 255


@dataclass(frozen=True, slots=True)
class Holding:
    """Samples in memory. Classification: one label each; language: the tokens one step later."""

    x: Array  # (samples, ...) float32, or integers for tokens
    y: Array  # (samples,) integers below `classes`, or (samples, length) for language
    classes: int  # or the size of the vocabulary
    stored_bytes: int = 0  # of samples and labels before pictures became floats; 0: as they are
    tells: bool = False  # the owner lets models take along what its classes are like

    @property
    def raw_bytes(self) -> int:
        """What would have to travel if the data went to the model."""
        return self.stored_bytes or self.x.nbytes + self.y.nbytes

    def __post_init__(self) -> None:
        """Raises: HoldingError for arrays that do not fit each other."""
        if len(self.x) != len(self.y) or not len(self.x):
            raise HoldingError(f"{len(self.x)} samples and {len(self.y)} labels make no data set")
        if (
            self.y.dtype.kind not in "iu"
            or int(self.y.min()) < 0
            or int(self.y.max()) >= self.classes
        ):
            raise HoldingError(f"labels are not whole numbers from 0 to {self.classes - 1}")

    def labels(self) -> dict[str, int]:
        """How many samples have each label; empty for language."""
        if self.y.ndim != 1:
            return {}
        values, counts = np.unique(self.y, return_counts=True)
        return {str(v): int(c) for v, c in zip(values, counts, strict=True)}


@dataclass(frozen=True, slots=True)
class Address:
    """A parsed address; `options` hold only what the scheme knows."""

    text: str
    scheme: str
    place: str
    options: Mapping[str, str]
    part: tuple[int, int]  # i of n, from 1
    cut: Cut
    seed: int
    split: str
    limit: int | None  # samples of the split that are used at all


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one kind of address is checked and read."""

    options: tuple[str, ...]
    split: str  # where the address names none
    check: Callable[[Address], None]
    read: Callable[[Address], readers.Table]


def parse(address: str) -> Address:
    """Read an address without looking at what it points to. Raises: HoldingError, one sentence."""
    head, _, query = address.partition("?")
    scheme, colon, place = head.partition(":")
    if scheme not in SCHEMES or not colon:
        raise HoldingError(
            f"data address {address!r}: unknown scheme; known: {', '.join(SCHEMES)}; "
            "write SCHEME:PLACE, as sklearn:digits"
        )
    if not place:
        raise HoldingError(f"data address {address!r}: nothing stands after {scheme}:")
    options = dict(parse_qsl(query, keep_blank_values=True))
    known = (*SHARED, *SCHEMES[scheme].options)
    for key in options:
        if key not in known:
            raise HoldingError(
                f"data address {address!r}: unknown option {key!r}; "
                f"{scheme} knows {', '.join(known)}"
            )
    part = _part(address, options.get("part", "1/1"))
    cut = _cut_of(address, options)
    seed = options.get("seed", "0")
    if not seed.isdecimal():
        raise HoldingError(f"data address {address!r}: seed is a whole number, not {seed!r}")
    for key, value in TOLD.items():
        if options.get(key, value) != value:
            raise HoldingError(
                f"data address {address!r}: {key} is {value}, or left out, not {options[key]!r}"
            )
    split = options.get("split", SCHEMES[scheme].split)
    if split not in ("train", "test", "all"):
        raise HoldingError(f"data address {address!r}: split is train, test or all, not {split!r}")
    limit = _count(address, "limit", options)
    return Address(address, scheme, unquote(place), options, part, cut, int(seed), split, limit)


def _cut_of(address: str, options: Mapping[str, str]) -> Cut:
    alphas: dict[str, float | None] = {"skew": None, "quantity": None}
    for key in alphas:
        if key in options:
            alpha = alphas[key] = _number(address, key, options[key])
            if not 0 < alpha <= 1e6:
                raise HoldingError(
                    f"data address {address!r}: {key} is a number above 0, not {alpha:g}"
                )
    try:
        return Cut(**alphas, shard=_count(address, "shard", options), by=options.get("by", ""))
    except ValueError as exc:
        raise HoldingError(f"data address {address!r}: {exc}") from None


def _count(address: str, key: str, options: Mapping[str, str]) -> int | None:
    text = options.get(key)
    if text is not None and not (text.isdecimal() and 0 < int(text) <= PARTS_MAX * 10_000):
        raise HoldingError(
            f"data address {address!r}: {key} is a whole number above 0, not {text!r}"
        )
    return None if text is None else int(text)


def _part(address: str, text: str) -> tuple[int, int]:
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n) <= PARTS_MAX):
        raise HoldingError(
            f"data address {address!r}: part is i/n with i from 1 to n, such as 2/5, not {text!r}"
        )
    return int(i), int(n)


def _number(address: str, key: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise HoldingError(f"data address {address!r}: {key} is a number, not {text!r}") from None


def check(address: str, *, allow_py: bool = False) -> None:
    """Find what is wrong with an address without loading the data. Raises: HoldingError."""
    parsed = parse(address)
    if parsed.scheme == "py" and not allow_py:
        raise HoldingError(
            f"data address {address!r}: py: runs code and is not allowed on this peer"
        )
    SCHEMES[parsed.scheme].check(parsed)


def load(address: str, *, allow_py: bool = False) -> Holding:
    """Read the data that an address names. Raises: HoldingError, one sentence."""
    check(address, allow_py=allow_py)
    parsed = parse(address)
    try:
        table = SCHEMES[parsed.scheme].read(parsed)
        return _cut(parsed, table)
    except HoldingError as exc:
        raise HoldingError(f"data address {address!r}: {exc}") from None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, csv.Error) as exc:
        raise HoldingError(f"data address {address!r} cannot be read: {exc}") from exc


def _cut(address: Address, table: readers.Table) -> Holding:
    x, y, classes = table
    if not len(x):
        raise HoldingError("it has no samples")
    Holding(x, y, classes)  # the whole set must be sound before a part of it is looked at
    labels = y if y.ndim == 1 else np.zeros(len(y), np.int64)
    chosen = np.arange(len(y))
    if address.split != "all" and address.scheme not in PUBLISHED:
        chosen = split_indices(labels, address.split)
    if address.limit is not None and address.limit < len(chosen):
        chosen = chosen[_spread(labels[chosen], address.limit)]
    i, n = address.part
    if n > len(chosen):
        raise HoldingError(f"{len(chosen)} samples cannot be cut into {n} parts")
    chosen = chosen[_deal(address, labels[chosen], chosen)[i - 1]]
    values = x[chosen]
    stored_bytes = values.nbytes + y[chosen].nbytes
    scale = 255.0 if address.scheme in PIXELS else float(address.options.get("scale", 0))
    if scale:  # only now: a part of the pictures is turned into floats, not all of them
        values = values.astype(np.float32) / np.float32(scale)
    if address.options.get("standardise", "0") not in ("0", "false"):
        every = x if address.split == "all" else x[split_indices(labels, "train")]
        spread = every.std(axis=0)
        values = (x[chosen] - every.mean(axis=0)) / np.where(spread > 0, spread, 1)
    if values.dtype.kind == "f":
        values = values.astype(np.float32, copy=False)
    whole = np.ascontiguousarray(values), np.ascontiguousarray(y[chosen])
    return Holding(*whole, classes, stored_bytes, "tell" in address.options)


def _spread(labels: Array, limit: int) -> Array:
    """Indices of `limit` samples with the labels of all, always the same ones."""
    order = np.argsort(np.random.default_rng(0).random(len(labels)), kind="stable")
    order = order[np.argsort(labels[order], kind="stable")]
    return np.sort(order[np.arange(limit) * len(order) // limit])


def _deal(address: Address, labels: Array, chosen: Array) -> list[Array]:
    """The parts, as indices into `chosen`. Raises: HoldingError or ValueError."""
    cut, (_, parts) = address.cut, address.part
    if cut.by:
        length = int(float(address.options.get("length", "64")))
        groups = readers.text_roles(Path(address.place), length)
        return list(partition_groups(groups[chosen], parts, seed=address.seed))
    return list(
        partition(
            labels,
            parts,
            skew=cut.skew,
            shard=cut.shard,
            quantity=cut.quantity,
            seed=address.seed,
        )
    )


def _check_sklearn(address: Address) -> None:
    if address.place not in SKLEARN:
        raise HoldingError(
            f"data address {address.text!r}: no set {address.place!r}; "
            f"there are {', '.join(SKLEARN)}"
        )
    if importlib.util.find_spec("sklearn") is None:
        raise HoldingError(
            f"data address {address.text!r} needs scikit-learn: pip install 'mfd[learn]'"
        )


def _check_file(address: Address) -> None:
    if not Path(address.place).is_file():
        raise HoldingError(f"data address {address.text!r}: no file {address.place!r}")
    for key in ("scale", "length"):
        if key in address.options and not _number(address.text, key, address.options[key]) > 0:
            raise HoldingError(f"data address {address.text!r}: {key} is a number above 0")


def _check_csv(address: Address) -> None:
    _check_file(address)
    if not address.options.get("label"):
        raise HoldingError(f"data address {address.text!r}: say label=COLUMN")


def _check_text(address: Address) -> None:
    _check_file(address)
    if address.options.get("by", "role") != "role":
        raise HoldingError(f"data address {address.text!r}: by is role, or left out")


def _check_images(address: Address) -> None:
    if not Path(address.place).is_dir():
        raise HoldingError(f"data address {address.text!r}: no folder {address.place!r}")
    for key in ("size", "classes"):
        _count(address.text, key, address.options)
    if address.options.get("colour", "rgb") not in pictures.COLOURS:
        raise HoldingError(
            f"data address {address.text!r}: colour is one of {', '.join(pictures.COLOURS)}"
        )
    if address.scheme == "images":
        _check_package(address, "PIL", "pillow")


def _check_jpeg(address: Address) -> None:
    _check_file(address)
    if address.split == "all":
        raise HoldingError(f"data address {address.text!r}: jpeg has split=train and split=test")
    _check_package(address, "PIL", "pillow")


def _check_hf(address: Address) -> None:
    _check_images(address)
    _check_package(address, "datasets", "datasets")


def _check_package(address: Address, module: str, package: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise HoldingError(
            f"data address {address.text!r} needs {package}: pip install 'mfd[datasets]'"
        )


def _check_idx(address: Address) -> None:
    if address.split == "all":
        raise HoldingError(
            f"data address {address.text!r}: idx has split=train and split=test only"
        )
    for path in readers.idx_paths(Path(address.place), address.split):
        if path is None:
            raise HoldingError(
                f"data address {address.text!r}: no {address.split} images and labels "
                f"(*-images-idx3-ubyte, *-labels-idx1-ubyte, .gz or not) in {address.place!r}"
            )


def _check_py(address: Address) -> None:
    module, colon, function = address.place.partition(":")
    if (
        not colon
        or not function.isidentifier()
        or not all(map(str.isidentifier, module.split(".")))
    ):
        raise HoldingError(f"data address {address.text!r}: say py:MODULE:FUNCTION")


SCHEMES: dict[str, Scheme] = {
    "sklearn": Scheme(
        ("standardise",), "train", _check_sklearn, lambda a: readers.read_sklearn(a.place)
    ),
    "idx": Scheme((), "train", _check_idx, lambda a: readers.read_idx(Path(a.place), a.split)),
    "npz": Scheme(
        ("x", "y", "classes", "scale", "standardise"),
        "all",
        _check_file,
        lambda a: readers.read_npz(Path(a.place), a.options),
    ),
    "csv": Scheme(
        ("label", "classes", "drop", "standardise"),
        "all",
        _check_csv,
        lambda a: readers.read_csv(Path(a.place), a.options),
    ),
    "text": Scheme(
        ("length", "by"),
        "all",
        _check_text,
        lambda a: readers.read_text(
            Path(a.place), int(float(a.options.get("length", "64"))), by=a.cut.by
        ),
    ),
    "py": Scheme((), "all", _check_py, lambda a: readers.read_py(a.place)),
    **{name: Scheme(*parts) for name, parts in texts.SCHEMES.items()},
    "images": Scheme(
        ("size", "colour"),
        "train",
        _check_images,
        lambda a: pictures.read_folder(Path(a.place), a.options),
    ),
    "jpeg": Scheme(
        (), "train", _check_jpeg, lambda a: pictures.read_packed(Path(a.place), a.split)
    ),
    "hf": Scheme(
        ("x", "y", "set", "size", "colour", "scale", "standardise", "classes"),
        "train",
        _check_hf,
        lambda a: pictures.read_saved(Path(a.place), a.options),
    ),
}
