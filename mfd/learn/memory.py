"""How much memory a stop takes: reckoned before it, measured after it, and fitted to a budget.

    weights       all of the model's state, as wide as it is
    + trained     gradients, the optimiser's slots, 32-bit copies of 16-bit weights, anchor, average
    + activations one small batch run forward, early exits and the first version inside the model
                  with it, what autograd keeps of it counted, times the samples
    + rows        logits of the received model, where distillation wants them
    x 1.2         where weights have 16 bits on a CPU: its kernels copy them in other orders

The budget is what the model and its training may take on top of the idle trainer and its data. The
measured figure is the model's state and the growth of the process's resident memory while it
trains: Linux keeps the peak, which is reset before (/proc/self/clear_refs), when free memory was
given back to the system and torch has made its first step; elsewhere it is the most since the
process began. On a GPU, torch counts.
Rules of this file: what is reckoned depends on sizes alone, never on what was measured, so that the
same plan takes the same layers on every machine with the same budget.
"""

from __future__ import annotations

import ctypes
import resource
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.errors import LearnError
from mfd.learn.exits import early_answers, joint_loss
from mfd.learn.holdings import Holding
from mfd.learn.layers import Layer, find_layers, split_at
from mfd.learn.measuring import check_answer, inputs_for
from mfd.learn.optimizers import Optimizer
from mfd.learn.options import Options
from mfd.learn.rows import ROWS_BYTES_MAX, tensors_of
from mfd.learn.stepping import slots_of
from mfd.packet.task import Range

if TYPE_CHECKING:
    from mfd.learn.stop import Smaller

__all__ = ["Fit", "Meter", "Need", "fit", "is_want_of_memory", "need_of", "shown", "state_bytes"]

PROBE = 2  # samples run forward to see what autograd keeps
WIDEST = 3  # times the widest activation: what is made and dropped again on the way back
WIDE = 4  # bytes of a number in 32 bits
NARROW_SLACK = 1.2  # measured: benchmarks/learning_memory.py
FULL_SHARE = 4  # a block takes one more layer while a quarter of the batch still fits
NARROW = (torch.float16, torch.bfloat16)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def state_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers, what is tied counted once."""
    state = module.state_dict(keep_vars=True)
    return sum({id(t): t.nbytes for t in state.values()}.values())


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes that training some layers takes."""

    weights: int
    trained: int
    sample: int  # activations of one sample
    opinion: int  # rows of the received model's logits, or a copy of it
    slack: float = 1.0  # of all that together, for what cannot be reckoned

    def total(self, micro: int) -> int:
        """With so many samples in memory at once."""
        whole = self.weights + self.trained + self.opinion + micro * self.sample
        return ceil(self.slack * whole)


@dataclass(frozen=True, slots=True)
class Fit:
    """What is trained at this stop, and how."""

    blocks: tuple[tuple[int, ...], ...]  # layers that train at once; one block after the other
    micro: int  # samples in memory at once
    estimate: int  # bytes of the largest block
    keep: int | None = None  # bytes that rows of a frozen front may take; None: as usual

    @property
    def ranges(self) -> tuple[Range, ...]:
        """All layers that train, as ranges."""
        layers = sorted({i for block in self.blocks for i in block})
        starts = [i for i in layers if i - 1 not in layers]
        ends = [i + 1 for i in layers if i + 1 not in layers]
        return tuple(zip(starts, ends, strict=True))


def need_of(
    module: nn.Module,
    holding: Holding,
    chosen: Sequence[int],
    options: Options,
    smaller: Smaller | None = None,
) -> Need:
    """Reckon what training these layers takes. The module's values stay as they are.

    `smaller`: versions inside the model that learn along.
    Raises: LearnError for layers without parameters.
    """
    layers = find_layers(module)
    keys = {key for i in chosen for key in layers[i].tensors}
    parameters = [
        p for key, p in module.named_parameters() if key in keys and p.is_floating_point()
    ]
    if not parameters:
        names = ", ".join(layers[i].name for i in chosen)
        raise LearnError(f"layers {names} have no parameters that could be trained")
    trained = 0
    narrow = any(p.dtype in NARROW for p in parameters)
    for p in parameters:
        wide = WIDE * p.numel() if narrow else p.nbytes
        trained += p.nbytes + slots_of(options) * wide
        trained += wide * (narrow + bool(options.ema)) + p.nbytes * bool(options.anchor)
    trained += 2 * max(WIDE * p.numel() for p in parameters)  # what a step makes on the way
    count = min(PROBE, len(holding.x))
    look = partial(_probe, module, layers, chosen, holding, parameters, options=options)
    saved, widest, logits, rest = look(count=count, smaller=smaller)
    sample, fixed = -(-saved // count), 0
    if smaller is not None and count > 1:  # it copies weights, however many samples there are
        one = look(count=1, smaller=smaller)[0]
        sample = max(0, -(-(saved - one) // (count - 1)))
        fixed = max(0, one - sample)
    sample += WIDEST * -(-widest // count)
    opinion = 0
    if options.distill:
        table = -(-logits // count) * len(holding.x)
        opinion = table if table <= ROWS_BYTES_MAX else rest
    slack = NARROW_SLACK if any(map(_is_narrow, module.parameters())) else 1.0
    return Need(state_bytes(module), trained + fixed, sample, opinion, slack)


def _is_narrow(p: nn.Parameter) -> bool:
    return p.dtype in NARROW and p.device.type == "cpu"


def _probe(
    module: nn.Module,
    layers: Sequence[Layer],
    chosen: Sequence[int],
    holding: Holding,
    parameters: Sequence[nn.Parameter],
    *,
    count: int,
    options: Options,
    smaller: Smaller | None,
) -> tuple[int, int, int, int]:
    """Bytes of `count` samples kept by autograd, of the widest activation, of logits; of the rest.

    Early exits answer too, and the first of the versions inside the model.
    """
    x, y = tensors_of(holding, torch.arange(count))
    module.eval().requires_grad_(False)
    front, rest = split_at(module, layers, chosen[0])
    own = {p.untyped_storage().data_ptr() for p in module.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}
    widest = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = max(storage.nbytes(), kept.get(storage.data_ptr(), 0))
        return tensor

    def look(_: nn.Module, __: object, out: object) -> None:
        nonlocal widest
        if isinstance(out, torch.Tensor):
            widest = max(widest, out.nbytes)

    hooks = [m.register_forward_hook(look) for m in module.modules()]
    try:
        for p in parameters:
            p.requires_grad_(True)
        inputs = inputs_for(module)(x)
        with torch.no_grad():
            hidden = inputs if front is None else front(inputs)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            logits, others = early_answers(rest, hidden)
            check_answer(logits)
            others += smaller.first(inputs) if smaller is not None else []
            target = y.to(logits.device, torch.int64).reshape(-1)
            loss = joint_loss(partial(_entropy, target), logits, others, options.temperature)
        del loss
    except (RuntimeError, IndexError, TypeError) as exc:
        if is_want_of_memory(exc):
            raise
        raise LearnError(
            f"the model does not take samples of shape {list(x.shape[1:])}: {exc}"
        ) from exc
    finally:
        for hook in hooks:
            hook.remove()
        module.requires_grad_(False)
    wide = WIDE * logits.numel()
    return sum(kept.values()), max(widest, wide), wide, state_bytes(rest)


def _entropy(target: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(said.float().reshape(-1, said.shape[-1]), target)


def fit(
    module: nn.Module,
    holding: Holding,
    options: Options,
    *,
    trained: Sequence[int],
    body: Range | None = None,
    block: int = 0,
    sweep: bool = False,
    budget: int = 0,
    smaller: Smaller | None = None,
) -> Fit:
    """Cut the layers into blocks that fit into `budget` bytes (0: no limit); see LearnTask.

    `smaller`: versions inside the model that learn along.
    Raises: LearnError where not even one layer fits.
    """
    batch = min(options.batch, len(holding.x))
    micro = min(options.micro or batch, batch)
    low, high = body or (min(trained), max(trained) + 1)
    inside = [i for i in trained if low <= i < high]
    ends = [i for i in trained if not low <= i < high]
    if body is None or not inside:
        inside, block, sweep = list(trained), 0, False
        ends = []
    reckon = partial(need_of, module, holding, options=options, smaller=smaller)
    room = _Room(module, reckon, budget, micro)
    blocks: list[tuple[int, ...]] = []
    at = 0
    while at < len(inside):
        most = min(block, len(inside) - at) if block else len(inside) - at
        least = most if block or body is None else 1
        taken = room.taken(inside[at:], ends, least=least, most=most) if budget else most
        blocks.append(tuple(sorted({*inside[at : at + taken], *ends})))
        at += taken
        if not sweep:
            break
    return room.settle(blocks)


class _Room:
    """A budget, and what fits into it."""

    def __init__(
        self, module: nn.Module, reckon: Callable[..., Need], budget: int, micro: int
    ) -> None:
        self.budget = budget
        self.micro = micro
        self._layers = find_layers(module)
        self._module = module
        self._reckon = reckon
        self._known: dict[tuple[int, ...], Need] = {}

    def need(self, chosen: Sequence[int]) -> Need:
        key = tuple(sorted(chosen))
        if key not in self._known:
            self._known[key] = self._reckon(chosen=key)
        return self._known[key]

    def samples(self, chosen: Sequence[int]) -> int:
        """How many samples may be in memory at once, a power of two below the batch; 0: none."""
        need, micro = self.need(chosen), self.micro
        whole = any(
            isinstance(self._module.get_submodule(name), nn.Module)
            and any(isinstance(m, BATCH_NORMS) for m in self._module.get_submodule(name).modules())
            for i in chosen
            for name in self._layers[i].modules
        )
        while micro and need.total(micro) > self.budget:
            micro = 0 if whole or micro == 1 else -(-micro // 2)
        return micro

    def taken(self, body: Sequence[int], ends: Sequence[int], *, least: int, most: int) -> int:
        """How many layers of `body`, from the first on, train at once beside `ends`."""
        good, low, high = 0, least, most
        enough = max(1, -(-self.micro // FULL_SHARE))
        while low <= high:  # more layers never take less
            middle = (low + high + 1) // 2
            if self.samples([*body[:middle], *ends]) >= enough:
                good, low = middle, middle + 1
            else:
                high = middle - 1
        if good:
            return good
        first = [*body[:least], *ends]
        if not self.samples(first):
            names = ", ".join(self._layers[i].name for i in sorted(first))
            raise LearnError(
                f"training {names} takes {shown(self.need(first).total(1))} with one sample at a "
                f"time, and this peer allows {shown(self.budget)}: raise its memory, or plan "
                "smaller blocks"
            )
        return least

    def settle(self, blocks: Sequence[tuple[int, ...]]) -> Fit:
        """The blocks with the micro-batch that all of them have room for."""
        if not self.budget:
            return Fit(tuple(blocks), self.micro, 0)
        micro = min(self.samples(chosen) for chosen in blocks)
        estimate = max(self.need(chosen).total(micro) for chosen in blocks)
        return Fit(tuple(blocks), micro, estimate, max(0, self.budget - estimate))


def shown(count: int) -> str:
    """Bytes for people, as 1.4 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def is_want_of_memory(exc: BaseException) -> bool:
    """Say whether an error means that memory has run out."""
    if isinstance(exc, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(exc)
    return isinstance(exc, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text or "bad_alloc" in text
    )


class Meter:
    """Measures what training takes beyond what the process held before."""

    def __init__(self, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        """`dtype`: of the weights."""
        _awaken(dtype)
        self._cuda = device == "cuda"
        if self._cuda:
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        self._before = _status("VmRSS") or _most()

    def taken(self) -> int:
        """Bytes at the peak since the beginning, beyond those of the beginning."""
        if self._cuda:
            return max(0, torch.cuda.max_memory_allocated() - self._before)
        return max(0, (_status("VmHWM") or _most()) - self._before)


@cache
def _awaken(dtype: torch.dtype) -> None:
    """Take one step of nothing: what torch loads with its first step belongs to no model."""
    with torch.random.fork_rng(devices=[]):
        module = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU()).to(dtype)
        heads = module(torch.zeros(8, 64, dtype=dtype)).reshape(1, 2, 8, 32)
        F.scaled_dot_product_attention(heads, heads, heads).sum().backward()  # type: ignore[no-untyped-call]
        Optimizer(list(module.parameters()), Options()).step(1e-3)


def _status(field: str) -> int:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) << 10
    return 0


def _most() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
