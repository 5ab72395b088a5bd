"""Text as tokens: windows for language models, padded rows with labels for classifiers.

    tokens:FILE?tokenizer=PLACE&length=64           tokens in windows, for language models
    tsv:FILE?tokenizer=PLACE&length=64&text=0&label=1    a sentence and a label a line, .gz or not

A tokenizer is a `tokenizer.json`, the folder in which it lies, `package:NAME` for the one in an
installed package, or `bytes`. Columns are numbers from 0, or names of the first line; a file that
ends in .csv (or .csv.gz) has commas, others tabs. Labels are numbers or words.
Rules of this file: a tokenizer is data, never code; sizes are checked before reading.
"""

from __future__ import annotations

import csv
import gzip
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from mfd.learn.errors import HoldingError

if TYPE_CHECKING:
    from mfd.learn.holdings import Address
    from mfd.learn.readers import Table

__all__ = ["SCHEMES"]

TEXT_BYTES_MAX = 1 << 30  # unpacked; tokens take four times as much
LINES_MAX = 5_000_000
LENGTH_MAX = 1 << 16
BYTES = "bytes"  # the tokenizer that every machine has: 256 tokens, and 0 is padding
PACKAGE = "package:"
PADS = ("[PAD]", "<pad>", "<|endoftext|>", "</s>")


def _check(address: Address) -> None:
    if not Path(address.place).is_file():
        raise HoldingError(f"data address {address.text!r}: no file {address.place!r}")
    _length(address)
    place = address.options.get("tokenizer", BYTES)
    if place != BYTES:
        _tokenizer_file(address, place)
        if importlib.util.find_spec("tokenizers") is None:
            raise HoldingError(
                f"data address {address.text!r} needs tokenizers: pip install 'mfd[hf]'"
            )


def _length(address: Address) -> int:
    text = address.options.get("length", "64")
    if not text.isdecimal() or not 0 < int(text) <= LENGTH_MAX:
        raise HoldingError(
            f"data address {address.text!r}: length is a whole number from 1 to {LENGTH_MAX}"
        )
    return int(text)


def _tokenizer_file(address: Address, place: str) -> Path:
    if place.startswith(PACKAGE):
        name = place.removeprefix(PACKAGE)
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        folders = list(spec.submodule_search_locations or ()) if spec is not None else []
        found = [path for f in folders for path in sorted(Path(f).rglob("tokenizer.json"))]
    else:
        path = Path(place)
        path = path / "tokenizer.json" if path.is_dir() else path
        found = [path] if path.is_file() else []
    if not found:
        raise HoldingError(
            f"data address {address.text!r}: no tokenizer.json at {place!r}; tokenizer is a folder "
            f"or file, package:NAME, or {BYTES}"
        )
    return found[0]


@lru_cache(maxsize=4)
def _load(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_file(str(path))
    except Exception as exc:  # the library raises Exception itself
        raise HoldingError(f"{path.name} is no tokenizer: {exc}") from exc
    made.no_truncation()
    return made


def _text(path: Path) -> str:
    with cast(Any, gzip.open(path) if path.suffix == ".gz" else path.open("rb")) as file:
        raw: bytes = file.read(TEXT_BYTES_MAX + 1)
    if len(raw) > TEXT_BYTES_MAX:
        raise HoldingError(f"more than {TEXT_BYTES_MAX} bytes of text")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise HoldingError(f"it is not UTF-8: {exc.reason} at byte {exc.start}") from None


def _read_tokens(address: Address) -> Table:
    """Windows of `length` tokens, and the same windows one token later; classes: vocabulary."""
    place, length = address.options.get("tokenizer", BYTES), _length(address)
    text = _text(Path(address.place))
    if place == BYTES:
        tokens, classes = np.frombuffer(text.encode(), np.uint8).astype(np.int32), 256
    else:
        tokenizer = _load(_tokenizer_file(address, place))
        tokenizer.no_padding()
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        tokens, classes = np.array(ids, np.int32), tokenizer.get_vocab_size()
    count = (len(tokens) - 1) // length
    if count < 1:
        raise HoldingError(f"{len(tokens)} tokens are too few for one window of {length}")
    x = tokens[: count * length].reshape(count, length)
    y = tokens[1 : count * length + 1].reshape(count, length)
    return x, y.astype(np.int64), classes


def _read_tsv(address: Address) -> Table:
    """Rows of `length` tokens, padded at the end, and their labels."""
    place, length = address.options.get("tokenizer", BYTES), _length(address)
    sentences, words = _columns(address)
    if place == BYTES:
        x = np.zeros((len(sentences), length), np.int32)
        for i, sentence in enumerate(sentences):
            raw = np.frombuffer(sentence.encode()[:length], np.uint8)
            x[i, : len(raw)] = raw
    else:
        tokenizer = _load(_tokenizer_file(address, place))
        pad = _pad(tokenizer, address.options.get("pad"))
        tokenizer.no_padding()
        x = np.full((len(sentences), length), pad, np.int32)
        for i, ids in enumerate(_encoded(tokenizer, sentences, length)):
            x[i, : len(ids)] = ids
    y, classes = _labels(words, address.options)
    return x, y, classes


def _encoded(tokenizer: Any, sentences: list[str], length: int) -> Iterator[list[int]]:
    tokenizer.enable_truncation(length)  # the marks at both ends are kept
    try:
        for made in tokenizer.encode_batch(sentences):
            yield made.ids
    finally:
        tokenizer.no_truncation()


def _pad(tokenizer: Any, given: str | None) -> int:
    if given is not None:
        if not given.isdecimal():
            raise HoldingError(f"pad is the number of a token, not {given!r}")
        return int(given)
    if tokenizer.padding:
        return int(tokenizer.padding["pad_id"])
    ids = (tokenizer.token_to_id(name) for name in PADS)
    return next((number for number in ids if number is not None), 0)


def _columns(address: Address) -> tuple[list[str], list[str]]:
    """Sentences and labels, line by line."""
    path = Path(address.place)
    comma = ".csv" in path.suffixes
    lines = _text(path).splitlines()
    if len(lines) > LINES_MAX:
        raise HoldingError(f"{len(lines)} lines; at most {LINES_MAX} are read")
    if comma:
        rows = csv.reader(lines)
    else:  # quotation marks are part of what was said
        rows = csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    names = [address.options.get(key, default) for key, default in (("text", "0"), ("label", "1"))]
    named = [name for name in names if not name.isdecimal()]
    header = next(rows, []) if named else []
    for name in named:
        if name not in header:
            have = f"there are {', '.join(header)}" if header else "it is empty"
            raise HoldingError(f"no column {name!r}; {have}")
    at = [int(name) if name.isdecimal() else header.index(name) for name in names]
    first = 2 if named else 1
    sentences, labels = [], []
    for number, row in enumerate(rows, start=first):
        if not row:
            continue
        if len(row) <= max(at):
            raise HoldingError(f"line {number} has {len(row)} columns, not {max(at) + 1}")
        sentences.append(row[at[0]])
        labels.append(row[at[1]].strip())
    if not labels:
        raise HoldingError("it has no rows")
    return sentences, labels


def _labels(words: list[str], options: Mapping[str, str]) -> tuple[np.ndarray[Any, Any], int]:
    """Labels as 0..n-1: numbers stay as they are, words go in sorted (or the given) order."""
    given = options.get("classes", "")
    if not given or given.isdecimal():
        if all(word.isdecimal() for word in words):
            y = np.array([int(word) for word in words], np.int64)
            return y, int(given) if given else int(y.max()) + 1
        order = sorted(set(words))
    else:
        order = given.split(",")
    places = {word: i for i, word in enumerate(order)}
    strange = next((word for word in words if word not in places), None)
    if strange is not None:
        raise HoldingError(f"label {strange!r} is not among the classes {', '.join(order)}")
    classes = max(len(order), int(given) if given.isdecimal() else 0)
    return np.array([places[word] for word in words], np.int64), classes


Parts = tuple[tuple[str, ...], str, Callable[["Address"], None], Callable[["Address"], "Table"]]
SCHEMES: dict[str, Parts] = {
    "tokens": (("tokenizer", "length"), "all", _check, _read_tokens),
    "tsv": (
        ("tokenizer", "length", "text", "label", "classes", "pad"),
        "all",
        _check,
        _read_tsv,
    ),
}
