"""Measure a module on local data.

Rules of this file: nothing changes; what does not fit is said in one sentence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.errors import Cancelled, LearnError
from mfd.learn.holdings import Holding
from mfd.learn.rows import tensors_of

__all__ = ["check_answer", "inputs_for", "measure"]

MEASURE_BATCH = 256
MEASURE_BATCH_LANGUAGE = 16  # each with length x vocabulary logits
SIXTEEN = (torch.float16, torch.bfloat16)


def measure(
    module: nn.Module,
    holding: Holding,
    *,
    limit: int | None = None,
    cancelled: Callable[[], bool] | None = None,
    batch: int = 0,
) -> dict[str, float]:
    """Mean cross entropy and accuracy, on all samples or on `limit` of them spread evenly.

    `batch` samples are in memory at once; 0: as many as is usual.
    Raises: LearnError where the model and the data do not fit; Cancelled.
    """
    count = len(holding.x)
    chosen = torch.arange(count)
    if limit is not None and count > limit:
        chosen = torch.arange(limit) * count // limit
    x, y = tensors_of(holding, chosen)
    module.eval()
    loss, right = 0.0, 0
    batch = batch or (MEASURE_BATCH if y.ndim == 1 else MEASURE_BATCH_LANGUAGE)
    for start in range(0, len(x), batch):
        if cancelled is not None and cancelled():
            raise Cancelled
        rows = x[start : start + batch]
        target = y[start : start + batch].long()
        with torch.no_grad():
            logits = _forward(module, rows, target, holding.classes)
        flat, wanted = logits.reshape(-1, logits.shape[-1]), target.reshape(-1)
        loss += float(F.cross_entropy(flat, wanted, reduction="sum"))
        right += int((flat.argmax(-1) == wanted).sum())
    total = y.numel()
    return {"samples": float(len(x)), "loss": loss / total, "accuracy": right / total}


def inputs_for(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """How samples become inputs of this module: tokens as int64, floats as wide as its weights."""
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    device = torch.device("cpu") if first is None else first.device
    wide = first.dtype if first is not None and first.dtype in SIXTEEN else None

    def convert(x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point():
            return x.to(device, torch.int64)
        return x.to(device) if wide is None else x.to(device, wide)

    return convert


def check_answer(said: object) -> None:
    """Raise LearnError where a model answers anything but logits."""
    if not isinstance(said, torch.Tensor):
        raise LearnError(
            f"the model answers a {type(said).__name__}, and what learns here answers logits "
            "alone: let its forward return one tensor"
        )


def _forward(
    module: nn.Module, x: torch.Tensor, target: torch.Tensor, classes: int
) -> torch.Tensor:
    try:
        logits: torch.Tensor = module(inputs_for(module)(x))
    except (RuntimeError, IndexError, TypeError) as exc:
        if "alloc" in str(exc) or "out of memory" in str(exc):
            raise
        shape = list(x.shape[1:])
        raise LearnError(f"the model does not take samples of shape {shape}: {exc}") from exc
    check_answer(logits)
    if tuple(logits.shape[:-1]) != tuple(target.shape) or logits.shape[-1] < classes:
        raise LearnError(
            f"the model answers {list(logits.shape[1:])} a sample, the data has labels of shape "
            f"{list(target.shape[1:])} and {classes} classes"
        )
    return logits.float().cpu()
