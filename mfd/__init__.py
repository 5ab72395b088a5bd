"""MFD, Model Follows Data: a model travels in packets, toward the data, and learns at every stop.

Rules of this file: importing it loads neither torch nor aiohttp nor asyncio; heavy parts load on
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mfd.api import Run, run, show

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "run", "show"]


def __getattr__(name: str) -> Any:
    if name in ("Run", "run", "show"):
        return getattr(import_module("mfd.api"), name)
    raise AttributeError(f"module 'mfd' has no attribute {name!r}")
