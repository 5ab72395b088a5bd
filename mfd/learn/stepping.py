"""The optimiser of a stop: clipping, copies in 32 bits of weights in 16, the average, the state.

Rules of this file: with full-width weights it does what torch's optimiser does, bit for bit. The
gradients of 16-bit weights are widened one tensor at a time, so that a copy of all never exists.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from mfd.learn.optimizers import Optimizer
from mfd.learn.options import Options

__all__ = ["CARRIED", "Stepper", "slots_of"]

CARRIED = "~"  # begins the names of tensors that travel with a layer and are no part of the module
SCALE_FIRST = 2.0**12  # of the loss where weights have float16, whose small gradients would vanish
SCALE_MAX = 2.0**16
SCALE_GROWS = 200  # good steps until it is doubled


class Stepper:
    """Steps the parameters of the layers that learn."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], options: Options) -> None:
        self.options = options
        self.named = dict(parameters)
        self.parameters = list(parameters.values())
        self.narrow = any(p.dtype in (torch.float16, torch.bfloat16) for p in self.parameters)
        self.targets: list[torch.Tensor] = list(self.parameters)
        if self.narrow:
            self.targets = [p.detach().float().requires_grad_(True) for p in self.parameters]
            self.optimizers = [Optimizer([target], options) for target in self.targets]
        else:
            self.optimizers = [Optimizer(self.parameters, options)]
        self.received = [p.detach().clone() for p in self.parameters] if options.anchor else []
        self.average = [t.detach().clone() for t in self.targets] if options.ema else []
        scaled = any(p.dtype == torch.float16 for p in self.parameters)
        self.loss_scale = SCALE_FIRST if scaled else 1.0
        self._good = 0

    def forget(self) -> None:
        """Drop the gradients of the last step."""
        for optimizer in self.optimizers:
            optimizer.forget()
        if self.narrow:
            for p in self.parameters:
                p.grad = None

    def step(self, rate: float) -> None:
        """Use the gradients: anchor, clip, step, average."""
        for p, origin in zip(self.parameters, self.received, strict=False):
            if p.grad is not None:
                pull = self.options.anchor * self.loss_scale
                p.grad.add_(p.detach() - origin, alpha=pull)
        if self.narrow:
            self._step_narrow(rate)
        else:
            if self.options.clip:
                nn.utils.clip_grad_norm_(self.parameters, self.options.clip)
            self.optimizers[0].step(rate)
        for average, target in zip(self.average, self.targets, strict=False):
            average.lerp_(target.detach(), 1 - self.options.ema)

    def _step_narrow(self, rate: float) -> None:
        grads = [p.grad for p in self.parameters]
        norms = [g.float().norm() for g in grads if g is not None]
        norm = float(torch.stack(norms).norm()) / self.loss_scale if norms else 0.0
        if self.loss_scale > 1 and not norm < float("inf"):
            self.loss_scale, self._good = self.loss_scale / 2, 0  # float16 ran over: no step
            return
        clip = self.options.clip
        factor = min(1.0, clip / (norm + 1e-6)) if clip else 1.0
        triples = zip(self.parameters, self.targets, self.optimizers, strict=True)
        for p, target, optimizer in triples:
            if p.grad is None:
                continue
            target.grad = p.grad.float().mul_(factor / self.loss_scale)
            p.grad = None
            optimizer.step(rate)
            target.grad = None
            p.detach().copy_(target.detach())
        self._good += 1
        if self.loss_scale > 1 and self._good >= SCALE_GROWS:
            self.loss_scale, self._good = min(2 * self.loss_scale, SCALE_MAX), 0

    def finish(self) -> None:
        """Put the average in place of the last weights, where there is one."""
        for p, average in zip(self.parameters, self.average, strict=False):
            p.detach().copy_(average)

    # the optimiser's state, by the name of what it belongs to

    def state(self) -> dict[str, torch.Tensor]:
        """Tensors `~OPTIMIZER.SLOT/NAME`, borrowed."""
        kind = self.options.optimizer
        out = {}
        for name, target in zip(self.named, self.targets, strict=True):
            for optimizer in self.optimizers:
                for slot, value in optimizer.state.get(target, {}).items():
                    out[f"{CARRIED}{kind}.{slot}/{name}"] = value.detach().cpu()
        return out

    def resume(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on with the state of an earlier stop; what does not fit begins afresh."""
        found: dict[str, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            slot, _, name = key.partition("/")
            kind, _, slot = slot.removeprefix(CARRIED).partition(".")
            target = dict(zip(self.named, self.targets, strict=True)).get(name)
            if kind != self.options.optimizer or target is None or not _fits(slot, value, target):
                continue
            device = target.device if value.ndim else value.device
            found.setdefault(name, {})[slot] = value.to(device).clone()
        for index, (name, target) in enumerate(zip(self.named, self.targets, strict=True)):
            slots = found.get(name, {})
            if set(slots) == SLOTS[self.options.optimizer]:
                optimizer = self.optimizers[index if self.narrow else 0]
                optimizer.state[target] = dict(slots)


def _fits(slot: str, value: torch.Tensor, target: torch.Tensor) -> bool:
    """Whether this can be an optimiser's own; whoever had the layer before may have made it up."""
    shape = torch.Size() if slot == "step" else target.shape
    if value.shape != shape or not value.is_floating_point():
        return False
    least = float("-inf") if slot in SIGNED else 0.0  # a count or a square
    return bool(torch.isfinite(value).all()) and (not value.numel() or float(value.min()) >= least)


SIGNED = ("exp_avg", "momentum_buffer")
ADAM = {"step", "exp_avg", "exp_avg_sq"}
SLOTS = {
    "adam": ADAM,
    "adamw": ADAM,
    "sgd": {"momentum_buffer"},
    "sgd-nesterov": {"momentum_buffer"},
}


def slots_of(options: Options) -> int:
    """How many numbers the optimiser keeps for each that it trains."""
    if options.optimizer in ("adam", "adamw"):
        return 2
    return 1 if options.momentum else 0
