"""Layers in, layers out. The only place that knows torch.

Rules of this package: importing it loads numpy but not torch; torch comes with the first task.
"""

from __future__ import annotations

from mfd.learn.errors import Cancelled, HoldingError, LearnError
from mfd.learn.holdings import Holding
from mfd.learn.learner import Learner

__all__ = ["Cancelled", "Holding", "HoldingError", "LearnError", "Learner"]
