"""Local samples as tensors: which of them each step sees, and what a frozen front makes of them.

Rules of this file: same seed and sizes, same order. Memory for what is kept is bounded.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from mfd.learn.holdings import Holding
from mfd.learn.options import Options

__all__ = ["ROWS_BYTES_MAX", "Rows", "Schedule", "tensors_of"]

ROWS_BYTES_MAX = 256 << 20  # of activations or teacher logits kept for the time of a stop
ENDLESS = 1 << 40  # steps, where time is what ends a stop


class Rows:
    """A frozen function of the local samples: kept where it fits, else computed every time."""

    def __init__(
        self,
        function: nn.Module,
        source: Callable[[torch.Tensor], torch.Tensor],
        *,
        shape: tuple[int, int],  # samples, batch
        frozen: bool,
        limit: int | None = None,  # bytes that may be kept
    ) -> None:
        samples, batch = shape
        self.source = source
        self.table: torch.Tensor | None = None
        # whole batches only: with the same shape as in training, rows come out bit-equal
        starts = range(0, samples, batch)
        index = torch.arange(samples)
        first = self._compute(function, index[:batch])
        limit = ROWS_BYTES_MAX if limit is None else min(limit, ROWS_BYTES_MAX)
        if not isinstance(first, torch.Tensor) or first.nbytes * len(starts) > limit:
            self.function = function if frozen else copy.deepcopy(function)
            return
        self.table = first.new_empty((samples, *first.shape[1:]))
        for start in starts:
            start = min(start, samples - batch)
            rows = index[start : start + batch]
            self.table[rows] = first if start == 0 else self._compute(function, rows)

    def _compute(self, function: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = function(self.source(rows))
        return out

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """Values of the samples with these indices: (rows, ...)."""
        return self._compute(self.function, rows) if self.table is None else self.table[rows]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Which samples each step sees: passes in random order, cut into batches of one size."""

    used: torch.Tensor  # indices of the samples that are seen at all
    steps: int
    batch: int
    seed: int

    @classmethod
    def of(cls, samples: int, options: Options, seed: int, share: float = 1.0) -> Schedule:
        """For a holding of so many samples; `share` is this block's part of the stop's work."""
        batch = min(options.batch, samples)
        if options.seconds:
            steps = ENDLESS
        elif options.steps:
            steps = max(1, round(options.steps * share))
        else:
            steps = max(1, round(options.epochs * share * samples / batch))
        used = torch.arange(samples)
        if steps * batch < samples:
            generator = torch.Generator().manual_seed(seed)
            used = torch.randperm(samples, generator=generator)[: steps * batch]
        return cls(used, steps, batch, seed)

    def batches(self) -> Iterator[torch.Tensor]:
        """Positions in `used` for each step; one pass is in memory at a time."""
        generator = torch.Generator().manual_seed(self.seed)
        left = torch.empty(0, dtype=torch.int64)
        for _ in range(self.steps):
            if len(left) < self.batch:
                left = torch.cat([left, torch.randperm(len(self.used), generator=generator)])
            yield left[: self.batch]
            left = left[self.batch :]


def tensors_of(holding: Holding, used: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples and labels with these indices; borrowed where they are all."""
    index = used.numpy()
    whole = len(index) == len(holding.x)
    x, y = (holding.x, holding.y) if whole else (holding.x[index], holding.y[index])
    if not x.flags.writeable:
        x = x.copy()
    if not y.flags.writeable:
        y = y.copy()
    return torch.from_numpy(x), torch.from_numpy(y)
