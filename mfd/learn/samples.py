"""What samples of a data set are like: all that must be known of data to say which models take it.

Rules of this file: torch is not loaded; nothing of what the samples say is in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mfd.learn.holdings import Holding

__all__ = ["Sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What samples of a data set are like."""

    shape: tuple[int, ...]  # of one sample
    classes: int  # of its labels; of text, of its tokens
    text: bool = False  # a label at each place: tokens, one later
    whole: bool = False  # values are whole numbers: tokens

    @classmethod
    def of(cls, holding: Holding) -> Sample:
        """What a holding has."""
        x, y = holding.x, holding.y
        return cls(tuple(x.shape[1:]), holding.classes, y.ndim == 2, x.dtype.kind in "iu")

    @classmethod
    def read(cls, plain: object) -> Sample | None:
        """The inverse of `plain`; None for what another version of a peer tells."""
        match plain:
            case {
                "shape": [*shape],
                "classes": int() as classes,
                "text": bool() as text,
                "whole": bool() as whole,
            } if all(type(side) is int and side > 0 for side in shape):
                return cls(tuple(shape), classes, text, whole)
        return None

    def plain(self) -> dict[str, Any]:
        """Values for JSON."""
        return {**asdict(self), "shape": list(self.shape)}
