"""Layers as an owner names them: glob patterns of the names of tensors.

Rules of this file: patterns come with a plan, so that their number, their length and the time that
they take are bounded. A star of a glob never goes back over what it has passed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from mfd.learn.errors import LearnError

__all__ = ["Groups", "fits", "groups_of"]

PATTERNS_MAX = 1_024  # of all layers together
PATTERN_CHARACTERS_MAX = 256
FITS_MAX = 2_000_000  # patterns x tensors: about four seconds

Groups = Mapping[str, Sequence[str]]
"""Name of a layer -> its patterns."""


def fits(key: str, pattern: str) -> bool:
    """Whether a tensor belongs to a pattern; `h.0` stands for `h.0.*` too."""
    return fnmatchcase(key, pattern) or fnmatchcase(key, pattern + ".*")


def groups_of(layers: object, tensors: int) -> dict[str, tuple[str, ...]]:
    """Read patterns, or {layer: [patterns]}, for a model of so many tensors. Raises: LearnError."""
    if isinstance(layers, list | tuple) and all(isinstance(p, str) for p in layers):
        layers = {pattern: (pattern,) for pattern in layers}
    if not isinstance(layers, Mapping) or not layers:
        raise LearnError(f"layers are patterns, or names with lists of patterns, not {layers!r}")
    for name, patterns in layers.items():
        listed = isinstance(patterns, list | tuple) and all(isinstance(p, str) for p in patterns)
        if not isinstance(name, str) or not listed:
            raise LearnError(f"layer {name!r} is a list of patterns, not {patterns!r}")
    found = {name: tuple(patterns) for name, patterns in layers.items()}
    every = [pattern for patterns in found.values() for pattern in patterns]
    if len(every) > PATTERNS_MAX or max(map(len, every), default=0) > PATTERN_CHARACTERS_MAX:
        raise LearnError(
            f"layers have at most {PATTERNS_MAX} patterns of {PATTERN_CHARACTERS_MAX} characters"
        )
    if len(every) * tensors > FITS_MAX:
        raise LearnError(f"{len(every)} patterns for {tensors} tensors are too many: name fewer")
    return found
