"""Steps of torch's own optimisers, each tensor with its state.

Rules of this file: what torch.optim's classes do, bit for bit, by the functions on which they rest.
The classes themselves import torch's compiler with their first step: a second of every trainer's
start, for a process that compiles nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from mfd.learn.options import Options

__all__ = ["Optimizer"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Optimizer:
    """Steps tensors by their gradients; `state` holds what it keeps for each, by slot."""

    def __init__(self, tensors: Sequence[torch.Tensor], options: Options) -> None:
        self.tensors = list(tensors)
        self.options = options
        self.state: dict[torch.Tensor, dict[str, torch.Tensor]] = {}

    def forget(self) -> None:
        """Drop the gradients of the last step."""
        for tensor in self.tensors:
            tensor.grad = None

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Use the gradients; a tensor without one stays as it is."""
        moved = [tensor for tensor in self.tensors if tensor.grad is not None]
        grads = [tensor.grad for tensor in moved if tensor.grad is not None]
        if self.options.optimizer in ("adam", "adamw"):
            self._adam(moved, grads, rate)
        else:
            self._sgd(moved, grads, rate)

    def _adam(self, moved: list[torch.Tensor], grads: list[torch.Tensor], rate: float) -> None:
        states = [self.state.get(tensor) or self._begin(tensor) for tensor in moved]
        (adam if self.options.optimizer == "adam" else adamw)(
            moved,
            grads,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            has_complex=any(torch.is_complex(tensor) for tensor in moved),
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=rate,
            weight_decay=self.options.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def _begin(self, tensor: torch.Tensor) -> dict[str, torch.Tensor]:
        self.state[tensor] = {
            "step": torch.tensor(0.0),
            "exp_avg": torch.zeros_like(tensor),
            "exp_avg_sq": torch.zeros_like(tensor),
        }
        return self.state[tensor]

    def _sgd(self, moved: list[torch.Tensor], grads: list[torch.Tensor], rate: float) -> None:
        momentum = self.options.momentum
        known = moved if momentum else []
        buffers = [self.state.get(tensor, {}).get("momentum_buffer") for tensor in known]
        sgd(
            moved,
            grads,
            buffers,
            weight_decay=self.options.weight_decay,
            momentum=momentum,
            lr=rate,
            dampening=0.0,
            nesterov=self.options.optimizer == "sgd-nesterov",
            maximize=False,
        )
        for tensor, buffer in zip(known, buffers, strict=True):
            if buffer is not None:
                self.state[tensor] = {"momentum_buffer": buffer}
