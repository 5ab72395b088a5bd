"""The first lines of `mfd` and `mfd-peer`, so that Ctrl-C is a quiet end from the start.

Rules of this file: nothing is imported at its top that takes time.
"""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["mfd", "mfd_peer"]

INTERRUPTED = 130


def mfd() -> int:
    """Run `mfd`; return its exit code."""
    return _begin("mfd", "mfd.cli.main")


def mfd_peer() -> int:
    """Run `mfd-peer`; return its exit code."""
    return _begin("mfd-peer", "mfd.cli.peer")


def _begin(program: str, module: str) -> int:
    try:
        main = import_module(module).main
    except KeyboardInterrupt:
        print(f"{program}: stopped", file=sys.stderr)
        return INTERRUPTED
    code: int = main()
    return code
