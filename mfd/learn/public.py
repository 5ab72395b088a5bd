"""Logits on a public set: the walker is what peers answer to samples that all of them hold.

Rules of this file: the table holds log probabilities, the mean over about one lap; labels of the
public set are not looked at.
Source: arXiv 1910.03581.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.exits import divergence
from mfd.learn.mutual import AT_HOME
from mfd.learn.options import Options
from mfd.learn.pupils import (
    Batches,
    Pupil,
    Visit,
    claims_of,
    lessons,
    measured,
    resident_claims,
)
from mfd.learn.rows import Schedule
from mfd.learn.tables import Table

__all__ = ["consult"]

BATCH = 256


def consult(
    table: Table, resident: nn.Module, at: Visit, options: Options, *, teach: float
) -> dict[str, float]:
    """Follow the consensus on the public set while learning at home, then add the own opinion."""
    public = at.public
    assert public is not None
    values, voices = table.values.detach(), table.counts.detach()
    if tuple(values.shape) != (len(public.x), at.holding.classes):
        raise LearnError(
            f"the walker has answers of shape {list(values.shape)}, but the public set has "
            f"{len(public.x)} samples and the data {at.holding.classes} classes"
        )
    schedule = Schedule.of(len(at.holding.x), options, at.seed)
    before = measured(resident, at)
    pupil = Pupil(resident, at, schedule, replace(options, **AT_HOME))
    batches = Batches(public, options.batch, at.seed)

    def follow(_: torch.Tensor, __: torch.Tensor) -> torch.Tensor:
        rows = batches.draw()
        kl = divergence(resident(batches.inputs(rows)), values[rows], options.temperature)
        return teach * kl

    if voices[0] > 0:
        pupil.lesson = follow
    lessons([pupil], at, schedule, options)
    after = measured(resident, at)
    with torch.no_grad():
        step = range(0, len(batches.x), BATCH)
        index = torch.arange(len(batches.x))
        own = torch.cat([resident(batches.inputs(index[i : i + BATCH])) for i in step])
        own = torch.log_softmax(own.float(), dim=-1)
        kept = voices * at.fading
        table.values.copy_((kept * values + own) / (kept + 1))
        table.counts.copy_(kept + 1)
    return {
        **claims_of(after, before, schedule),
        **resident_claims(after, before, at.holding.classes),
    }
