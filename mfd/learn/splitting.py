"""Cut a module in front of a layer: a front that can run once, and a rest that learns.

Rules of this file: `rest(front(x))` gives the bits of `module(x)`, or the module stays whole. Both
share the module's tensors. A model of Hugging Face is cut by running it up to a block, and later
by running it with the blocks before left out and the kept values put in.
Tensors: B batch, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from mfd.learn.finding import Layer, flat_children

__all__ = ["split_at"]

PROBE = (2, 4)  # rows and tokens of the trial that shows whether a model can be cut


def split_at(
    module: nn.Module, layers: Sequence[Layer], index: int
) -> tuple[nn.Module | None, nn.Module]:
    """Cut in front of a layer; what cannot be cut stays whole: (None, module).

    A Sequential is cut between its children, a model of Hugging Face between the blocks of its
    first list (from its second block on), where a trial shows that this gives the same bits.
    """
    layer = layers[index]
    if isinstance(module, nn.Sequential):
        if not layer.start:
            return None, module
        children = [module.get_submodule(name) for name in flat_children(module)]
        return nn.Sequential(*children[: layer.start]), nn.Sequential(*children[layer.start :])
    first = next((other.block for other in layers if other.block), "")
    own, _, number = layer.block.rpartition(".")
    if not number.isdecimal() or number == "0" or first.rpartition(".")[0] != own:
        return None, module  # before the first block, or blocks of a second list
    if not hasattr(module, "config") or not isinstance(module.get_submodule(own), nn.ModuleList):
        return None, module
    told = Told()
    front = Front(module, told, own, int(number))
    rest = Rest(module, told, own, int(number))
    return (front, rest) if _same(module, front, rest) else (None, module)


class Told:
    """What the front saw of the last input, which the rest must imitate."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype = torch.int64


class _Reached(Exception):
    """The block in front of which the module is cut was called with these values."""

    def __init__(self, values: torch.Tensor) -> None:
        super().__init__()
        self.values = values


class Skip(nn.Module):
    """Stands for a block that is left out: gives what it gets, or what it was given before."""

    def __init__(self, block: nn.Module, given: torch.Tensor | None) -> None:
        super().__init__()
        object.__setattr__(self, "stood_for", block)  # not as a submodule
        object.__setattr__(self, "given", given)

    def __getattr__(self, name: str) -> Any:  # models ask their blocks for the kind of attention
        return getattr(self.__dict__["stood_for"], name)

    def forward(self, values: torch.Tensor, *_: object, **__: object) -> torch.Tensor:
        given: torch.Tensor | None = self.__dict__["given"]
        return values if given is None else given


class Front(nn.Module):
    """Runs a model up to a block: its input, and for tokens which of them are real, as a column."""

    def __init__(self, module: nn.Module, told: Told, own: str, number: int) -> None:
        super().__init__()
        self.whole = module
        self.told = told
        self.own = own  # path of the list of blocks
        self.number = number  # from 1; the last one is the end of the list

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Tokens x_BT -> (B, T, D + 1); pictures -> what the block is given."""
        self.told.shape, self.told.dtype = tuple(x.shape[1:]), x.dtype
        before = self.whole.get_submodule(f"{self.own}.{self.number - 1}")

        def reach(_: nn.Module, args: tuple[Any, ...], out: torch.Tensor) -> None:
            raise _Reached(out)

        handle = before.register_forward_hook(reach)
        try:
            self.whole(x)
        except _Reached as reached:
            values = reached.values
        else:
            raise RuntimeError(f"{self.own} is not part of the model's forward pass")
        finally:
            handle.remove()
        if x.is_floating_point():
            return values
        real = torch.ones_like(x) if (pad := _pad(self.whole)) is None else x != pad
        return torch.cat((values, real.unsqueeze(-1).to(values.dtype)), dim=-1)


class Rest(nn.Module):
    """Runs a model from a block on, with what `Front` gave."""

    def __init__(self, module: nn.Module, told: Told, own: str, number: int) -> None:
        super().__init__()
        self.whole = module
        self.told = told
        self.own = own
        self.number = number

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """What `Front` gave -> what the model answers."""
        path, _, name = self.own.rpartition(".")
        parent, blocks = self.whole.get_submodule(path), self.whole.get_submodule(self.own)
        assert isinstance(blocks, nn.ModuleList)
        if self.told.dtype.is_floating_point:
            given = values
            x = values.new_zeros((len(values), *self.told.shape), dtype=self.told.dtype)
        else:
            given, x = values[..., :-1], self._tokens(values[..., -1])
        skipped = [Skip(block, None) for block in blocks[: self.number - 1]]
        skipped.append(Skip(blocks[self.number - 1], given))
        setattr(parent, name, nn.ModuleList([*skipped, *blocks[self.number :]]))
        try:
            answer: torch.Tensor = self.whole(x)
        finally:
            setattr(parent, name, blocks)
        return answer

    def _tokens(self, real_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803
        """Tokens that are padding where the true ones were; their values are not used."""
        pad = _pad(self.whole)
        some = 0 if pad != 0 else 1
        return torch.where(real_BT > 0, some, some if pad is None else pad).to(self.told.dtype)


def _pad(module: nn.Module) -> int | None:
    pad = getattr(getattr(module, "config", None), "pad_token_id", None)
    return pad if isinstance(pad, int) else None


def _same(module: nn.Module, front: Front, rest: Rest) -> bool:
    """Try both ways on made-up input, the last token of the first row being padding."""
    config: Any = module.config
    was = module.training
    module.eval()
    try:
        x = _trial(config)
        with torch.no_grad():
            whole, parts = module(x), rest(front(x))
        return isinstance(whole, torch.Tensor) and torch.equal(whole, parts)
    except (RuntimeError, AttributeError, KeyError, TypeError, ValueError, IndexError):
        return False  # a model of a kind that is not foreseen here
    finally:
        module.train(was)


def _trial(config: Any) -> torch.Tensor:
    size = getattr(config, "image_size", None)
    if size is not None and not hasattr(config, "vocab_size"):
        size = (size, size) if isinstance(size, int) else tuple(size)
        wave = torch.linspace(-1, 1, config.num_channels * size[0] * size[1])
        picture: torch.Tensor = wave.reshape(1, config.num_channels, *size)
        return picture
    tokens: torch.Tensor = (
        torch.arange(2, 2 + PROBE[0] * PROBE[1]).reshape(PROBE) % config.vocab_size
    )
    pad = config.pad_token_id
    if isinstance(pad, int):
        tokens[tokens == pad] = (pad + 1) % config.vocab_size
        tokens[0, -1] = pad
    return tokens
