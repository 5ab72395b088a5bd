"""The three ways in which learning can end badly; each message is one sentence for a user."""

from __future__ import annotations

__all__ = ["Cancelled", "HoldingError", "LearnError"]


class HoldingError(ValueError):
    """A data address is wrong, or what it points to cannot be read."""


class LearnError(ValueError):
    """A task cannot be done: its model, its plan or its data do not fit."""


class Cancelled(Exception):
    """The task was cancelled; nothing of it remains."""
