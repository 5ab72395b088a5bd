"""The house style as far as a machine sees it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "mfd").rglob("*.py"))
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
VAGUE = re.compile(r"(Manager|Helper|Util|Service)")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short_and_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.isascii(), "ASCII only"
    assert text.count("\n") <= FILE_LINES_MAX, f"{path.name} is too long"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= FUNCTION_LINES_MAX, f"{path.name}:{node.lineno} {node.name}: {length}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            assert not VAGUE.search(node.name), f"{path.name}:{node.lineno} {node.name}"


def test_broad_excepts_give_a_reason() -> None:
    """`except Exception` stands only at a task boundary, with its reason beside it."""
    for path in SOURCES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if re.search(r"except (Base)?Exception", line):
                assert "#" in line, f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_tests_do_not_sleep() -> None:
    for path in sorted((ROOT / "tests").rglob("*.py")):
        if path == Path(__file__):
            continue
        found = re.search(r"\b(asyncio|time)\.sleep\((?!0\))", path.read_text())
        assert found is None, f"{path.relative_to(ROOT)} sleeps: wait for the event instead"


def test_importing_mfd_is_light() -> None:
    """`import mfd` loads no torch, aiohttp, asyncio or networkx."""
    code = (
        "import sys; before = set(sys.modules); import mfd; "
        "print([m for m in ('torch', 'aiohttp', 'asyncio', 'networkx', 'numpy') "
        "if m in sys.modules and m not in before])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
