"""Walkers that are no model: answers to a public set, mean embeddings of labels.

Rules of this file: a table is a module of the zoo, so that it is packed, sent and merged like one.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["Table"]


class Table(nn.Module):
    """Values by row, and how many opinions or samples stand behind them; all zero at first.

    Shape: values (rows, columns), counts (rows,) or (1,), both f32
    """

    def __init__(self, rows: int, columns: int, *, counts: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(rows, columns), requires_grad=False)
        self.counts = nn.Parameter(torch.zeros(counts), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raises: TypeError; a table answers no samples."""
        raise TypeError("a table of logits or prototypes answers no samples: mode = distill")
