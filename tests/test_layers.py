"""The import rules hold, and each of them bites when it is broken on purpose."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# (file, line to plant, contract that must break)
PLANTED = [
    ("packet/errors.py", "import asyncio", "pure"),
    ("core/walk.py", "import random", "pure"),
    ("core/walk.py", "import time", "pure"),
    ("topology/values.py", "import os", "pure"),
    ("packet/objects.py", "import torch", "pure"),
    ("packet/errors.py", "import mfd.core.config", "layers"),
    ("core/walk.py", "import mfd.net.keys", "layers"),
    ("net/keys.py", "import mfd.sim.keys", "layers"),
    ("web/face.py", "import mfd.learn.zoo", "layers"),
    ("trial.py", "import mfd.cli.plans", "layers"),
    ("learn/zoo.py", "import mfd.trial", "layers"),
    ("learn/zoo.py", "import mfd.core.config", "learn"),
    ("learn/zoo.py", "import socket", "learn"),
    ("net/keys.py", "import torch", "torch"),
    ("sim/keys.py", "import threading", "sim"),
    ("core/frames.py", "import mfd.core.peer", "core-order"),
    ("core/routing.py", "import mfd.core.transfer", "core-order"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"]
    return subprocess.run(
        [*command, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "NO_COLOR": "1", "COLUMNS": "200"},
    )


@pytest.fixture(scope="module")
def copy_of_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "mfd", folder / "mfd", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


def test_the_tree_keeps_its_rules(copy_of_tree: Path) -> None:
    result = lint(copy_of_tree)
    assert result.returncode == 0, result.stdout + result.stderr


def test_every_planted_import_is_caught(copy_of_tree: Path) -> None:
    """All at once, so that the graph is built once: each broken chain must be named."""
    before = {}
    for name, line, _ in PLANTED:
        path = copy_of_tree / "mfd" / name
        before.setdefault(path, path.read_text())
        path.write_text(path.read_text() + f"\n{line}\n")
    try:
        result = lint(copy_of_tree)
    finally:
        for path, text in before.items():
            path.write_text(text)
    assert result.returncode == 1, result.stdout + result.stderr
    for name, line, contract in PLANTED:
        source = "mfd." + name.removesuffix(".py").replace("/", ".")
        target = line.removeprefix("import ")
        assert f"{source} -> {target}" in result.stdout, f"{contract}: {name}: {line}"


def test_an_unlisted_package_is_caught(copy_of_tree: Path) -> None:
    stray = copy_of_tree / "mfd" / "stray"
    stray.mkdir()
    (stray / "__init__.py").write_text("")
    try:
        result = lint(copy_of_tree)
    finally:
        shutil.rmtree(stray)
    assert result.returncode == 1
    assert "stray" in result.stdout
