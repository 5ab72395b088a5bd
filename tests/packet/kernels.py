"""The C kernels as the source says now, built apart from what is installed."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def build(folder: Path, name: str, **environment: str) -> tuple[Path | None, str]:
    """Run setup.py; return a library, or None where no compiler made one, and what was said."""
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(folder), "--build-temp", str(folder)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    made = [path for path in folder.rglob(f"{name}*") if path.suffix in (".so", ".pyd")]
    return (made[0] if made else None), done.stdout + done.stderr


def load(path: Path) -> ModuleType:
    """Import a library from where it lies."""
    name = path.name.partition(".")[0]
    loader = importlib.machinery.ExtensionFileLoader(name, str(path))
    spec = importlib.util.spec_from_loader(name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def kernel(folder: Path, name: str = "_planes") -> ModuleType:
    """Build and load a kernel, or skip the tests that need it."""
    if os.environ.get("MFD_NATIVE") == "0":
        pytest.skip("the C kernels are turned off by MFD_NATIVE=0")
    path, said = build(folder, name)
    if path is None:
        pytest.skip(f"no C compiler here: {said.strip().splitlines()[-1:]}")
    return load(path)
