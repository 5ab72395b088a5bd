"""What is raised when something happened that must never happen."""

from __future__ import annotations

__all__ = ["Violation"]


class Violation(AssertionError):
    """An invariant does not hold; the message says which, where and when."""
