"""Specification and tests name each other: every rule is tested, every named rule exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEFINED = re.compile(r"\*\*([A-Z]+-\d+)\*\*")
NAMED = re.compile(r"Rules:\s*((?:[A-Z]+-\d+[,\s]*)+)")


def defined() -> list[str]:
    texts = (path.read_text() for path in sorted((ROOT / "spec").glob("*.md")))
    return [rule for text in texts for rule in DEFINED.findall(text)]


def named() -> set[str]:
    texts = (path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    groups = (group for text in texts for group in NAMED.findall(text))
    return {rule for group in groups for rule in re.findall(r"[A-Z]+-\d+", group)}


def test_no_rule_is_defined_twice() -> None:
    rules = defined()
    assert sorted(rules) == sorted(set(rules))
    assert "P-01" in rules


def test_every_rule_is_named_by_a_test() -> None:
    assert set(defined()) - named() == set()


def test_every_named_rule_is_defined() -> None:
    assert named() - set(defined()) == set()
