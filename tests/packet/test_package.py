"""What the package exports, and that it stays light."""

from __future__ import annotations

import subprocess
import sys

import mfd.packet as package


def test_every_name_is_there_whatever_was_imported_before() -> None:
    """A module of a function's name would hide the function once it is imported."""
    code = (
        "import importlib, mfd.packet as p\n"
        "for module in p.LATER: importlib.import_module('mfd.packet.' + module)\n"
        "for module, names in p.LATER.items():\n"
        "    there = importlib.import_module('mfd.packet.' + module)\n"
        "    for name in names: assert getattr(p, name) is getattr(there, name), name\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    for name in package.__all__:
        assert getattr(package, name) is not None
    assert {name for names in package.LATER.values() for name in names} <= set(package.__all__)


def test_what_a_packet_needs_is_all_that_is_imported() -> None:
    code = (
        "import sys, mfd.packet as p\n"
        "heavy = {'torch', 'networkx', 'aiohttp', 'asyncio', 'cryptography', 'pydantic', 'json'}\n"
        "print(sorted(heavy & set(sys.modules)),"
        " [m for m in p.LATER if 'mfd.packet.' + m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[] []"
