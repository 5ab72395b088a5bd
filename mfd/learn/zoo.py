"""Models by recipe: a plan names one of these and its sizes; code never travels.

Rules of this file: every model is a Sequential whose children are its layers, so that any range of
layers can be trained with what lies before it run once. Sizes come from strangers: all are bounded.
Tensors: B batch, C channels, H height, W width, T tokens, D model width, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from math import prod
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the field's own name
from torch import nn

from mfd.learn.exits import Stage
from mfd.learn.tables import Table

__all__ = ["MODELS", "TABLES", "ZOO", "arguments", "build", "init"]

EXTENT_MAX = 1 << 16  # one width, length or number of classes
EXAMPLES = {"inputs": "1x8x8"}  # of arguments that a recipe must give; others are numbers
DEPTH_MAX = 192  # blocks; a manifest names at most 256 layers


def build(recipe: Mapping[str, Any]) -> nn.Sequential:
    """Make the module that a recipe names, with torch's own initial values.

    Raises: ValueError, one sentence, for an unknown name or argument or a size out of range.
    """
    arguments = dict(recipe)
    name = arguments.pop("zoo", None)
    arguments.pop("axes", None)  # for those who scale the model, not for its making
    if not isinstance(name, str) or name not in ZOO:
        near = get_close_matches(str(name), ZOO, n=1)
        meant = f"did you mean {near[0]!r}? There" if near else "there"
        raise ValueError(f"no recipe {name!r} in the zoo; {meant} are {', '.join(MODELS)}")
    known = inspect.signature(ZOO[name]).parameters
    for key, value in arguments.items():
        if key not in known:
            raise ValueError(f"recipe {name!r} has no argument {key!r}; it has {', '.join(known)}")
        _check(name, key, value, like=known[key].default)
    lacking = [key for key, p in known.items() if p.default is p.empty and key not in arguments]
    if lacking:
        example = ",".join(f"{key}={EXAMPLES.get(key, 10)}" for key in lacking)
        raise ValueError(f"recipe {name!r} lacks {', '.join(lacking)}: as in {name}:{example}")
    try:
        return nn.Sequential(ZOO[name](**arguments))
    except (RuntimeError, ZeroDivisionError, TypeError) as exc:
        raise ValueError(f"recipe {name!r} cannot be built: {exc}") from exc


def _check(name: str, key: str, value: object, *, like: object) -> None:
    listed = (
        key in ("inputs", "hidden") and isinstance(value, Sequence) and not isinstance(value, str)
    )
    if listed and isinstance(value, Sequence):
        if len(value) > DEPTH_MAX:
            raise ValueError(f"recipe {name!r}: {key} has {len(value)} entries > {DEPTH_MAX}")
        for entry in value:
            _check(name, "an entry of " + key, entry, like=0)
    elif isinstance(like, bool):
        if not isinstance(value, bool):
            raise ValueError(f"recipe {name!r}: {key} is true or false, not {value!r}")
    elif isinstance(like, str):
        if not isinstance(value, str):
            raise ValueError(f"recipe {name!r}: {key} is a word, not {value!r}")
    elif isinstance(like, float):
        if not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"recipe {name!r}: {key} is a number from 0 to 1, not {value!r}")
    else:
        limit = DEPTH_MAX if key == "depth" else EXTENT_MAX
        if type(value) is not int or not 1 <= value <= limit:
            raise ValueError(
                f"recipe {name!r}: {key} is a whole number from 1 to {limit}, not {value!r}"
            )


def init(recipe: Mapping[str, Any], seed: int) -> nn.Sequential:
    """Build with initial values that depend on the recipe and the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(recipe)


Layers = OrderedDict[str, nn.Module]


def mlp(inputs: Sequence[int], classes: int, hidden: Sequence[int] = (64, 64)) -> Layers:
    """Fully connected: hidden layers with ReLU, then the head."""
    widths = [prod(inputs), *hidden]
    layers: Layers = OrderedDict()
    for i in range(len(hidden)):
        front = [nn.Flatten()] if i == 0 else []
        layers[f"fc{i + 1}"] = nn.Sequential(*front, nn.Linear(widths[i], widths[i + 1]), nn.ReLU())
    layers["head"] = nn.Linear(widths[-1], classes)
    if not hidden:
        layers["head"] = nn.Sequential(nn.Flatten(), layers["head"])
    return layers


POOL_AFTER = ((), (4,), (2, 4), (1, 3, 4), (1, 2, 3, 4))  # which convolutions halve the picture


def cnn(
    inputs: Sequence[int],
    classes: int,
    width: int = 16,
    hidden: int = 0,
    norm: str = "group",
    *,
    exits: bool = False,
    depth: int = 4,
) -> Layers:
    """Six layers: four convolutions, one hidden layer, the head.

    50k parameters on 8x8x1 and 108k on 28x28x1. `hidden` 0: 64 for small pictures, else 128.
    With `exits` four layers, each a convolution and its exit, of which the last is hidden layer and
    head; `depth` keeps the first of them.
    Shape: x_BCHW -> logits (B, classes)
    """
    _check_depth(depth, 4, exits=exits)
    channels, height, breadth = _picture(inputs)
    side = min(height, breadth)
    pools = next((p for p in range(5) if side >> p <= 3), 4)
    layers: Layers = OrderedDict()
    widths = (channels, width, 2 * width, 2 * width, 4 * width)
    for i in range(1, 5):
        pooled = i in POOL_AFTER[pools]
        layers[f"conv{i}"] = _convolution(widths[i - 1], widths[i], norm=norm, pooled=pooled)
    flat = widths[4] * (height >> pools) * (breadth >> pools)
    hidden = hidden or (64 if side < 16 else 128)
    full = (nn.Linear(flat, hidden), nn.ReLU())
    if exits:
        heads: list[nn.Module] = [_exit(widths[i], classes, side=3) for i in (1, 2, 3)]
        heads.append(nn.Sequential(nn.Flatten(), *full, nn.Linear(hidden, classes)))
        return _stages(layers, heads, depth)
    layers["fc"] = nn.Sequential(nn.Flatten(), *full)
    layers["head"] = nn.Linear(hidden, classes)
    return layers


def _check_depth(depth: int, full: int, *, exits: bool) -> None:
    if depth > full or (depth < full and not exits):
        raise TypeError(f"depth is at most {full}, and less of it needs exits: exits=true")


def _exit(channels: int, classes: int, *, side: int) -> nn.Sequential:
    """An answer from a picture of features: means over side x side fields, then one layer."""
    flat = channels * side * side
    return nn.Sequential(nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(flat, classes))


def _stages(bodies: Layers, heads: Sequence[nn.Module], depth: int) -> Layers:
    """Give each of the first `depth` bodies its exit."""
    kept = list(zip(bodies.items(), heads, strict=True))[:depth]
    return OrderedDict(
        (name, Stage(body, head, last=i == depth))
        for i, ((name, body), head) in enumerate(kept, start=1)
    )


VGG11 = ((64, True), (128, True), (256, False), (256, True), (512, False), (512, True))


def vgg11(
    inputs: Sequence[int],
    classes: int,
    width: int = 64,
    norm: str = "group",
    dropout: float = 0.0,
    *,
    exits: bool = False,
    depth: int = 8,
) -> Layers:
    """Eight convolutions and one head of 512 x classes: 9.2 M parameters on 32x32x3 without norms.

    With `exits` eight layers, each a convolution and its head; `depth` keeps the first of them.
    Source: Simonyan and Zisserman 2015, configuration A. `width` 64 is the published one.
    """
    _check_depth(depth, 8, exits=exits)
    channels, _, _ = _picture(inputs)
    widths = []
    layers: Layers = OrderedDict()
    for i, (published, pooled) in enumerate((*VGG11, (512, False), (512, True)), start=1):
        out = published * width // 64
        layers[f"conv{i}"] = _convolution(channels, out, norm=norm, pooled=pooled)
        channels = out
        widths.append(out)
    if exits:
        return _stages(layers, [_exit(w, classes, side=1) for w in widths], depth)
    front = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
    layers["head"] = nn.Sequential(*front, nn.Linear(channels, classes))
    return layers


def _picture(inputs: Sequence[int]) -> tuple[int, int, int]:
    if len(inputs) != 3:
        raise TypeError(f"inputs are [channels, height, width], not {list(inputs)}")
    return inputs[0], inputs[1], inputs[2]


def _convolution(source: int, target: int, *, norm: str, pooled: bool) -> nn.Sequential:
    """3x3 convolution, norm, ReLU, and where `pooled` a halving of the picture."""
    parts: list[nn.Module] = [nn.Conv2d(source, target, 3, padding=1)]
    match norm:
        case "group":
            groups = next(g for g in (8, 4, 2, 1) if target % g == 0)
            parts.append(nn.GroupNorm(groups, target))
        case "batch":
            parts.append(nn.BatchNorm2d(target))
        case "fours":  # a slice of whole fours is normalised as in the full model
            parts.append(
                nn.GroupNorm(target // next(g for g in (4, 2, 1) if target % g == 0), target)
            )
        case "static":  # of the batch at hand, in measuring too: nothing runs, nothing is merged
            parts.append(nn.BatchNorm2d(target, track_running_stats=False))
        case "none":
            pass
        case _:
            raise TypeError(f"norm is group, fours, batch, static or none, not {norm!r}")
    parts.append(nn.ReLU())
    if pooled:
        parts.append(nn.MaxPool2d(2))
    return nn.Sequential(*parts)


class Embedding(nn.Module):
    """Token plus learned position: tokens_BT -> x_BTD."""

    def __init__(self, vocabulary: int, length: int, width: int) -> None:
        super().__init__()
        self.token = nn.Embedding(vocabulary, width)
        self.position = nn.Embedding(length, width)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:  # noqa: N803
        place_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)  # noqa: N806
        x_BTD: torch.Tensor = self.token(tokens_BT) + self.position(place_T)  # noqa: N806
        return x_BTD


class Block(nn.Module):
    """Pre-norm attention, causal or not, and MLP: x_BTD -> x_BTD."""

    def __init__(self, width: int, heads: int, dropout: float, *, causal: bool = True) -> None:
        super().__init__()
        if width % heads:
            raise TypeError(f"width {width} is not a multiple of {heads} heads")
        self.heads = heads
        self.causal = causal
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, D / heads)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        y: torch.Tensor = x + self.mlp(self.norm2(x))
        return y


def transformer(
    vocabulary: int = 256,
    length: int = 64,
    *,
    width: int = 64,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
    exits: bool = False,
) -> Layers:
    """A causal language model: tokens_BT -> logits_BTV. With `exits` each block has its head."""
    layers: Layers = OrderedDict(embedding=Embedding(vocabulary, length, width))
    blocks: Layers = OrderedDict(
        (f"block{i}", Block(width, heads, dropout)) for i in range(1, depth + 1)
    )
    ends = [
        nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))
        for _ in range(depth if exits else 1)
    ]
    if exits:
        return OrderedDict([*layers.items(), *_stages(blocks, ends, depth).items()])
    return OrderedDict([*layers.items(), *blocks.items(), ("head", ends[0])])


class Patches(nn.Module):
    """Squares of a picture as tokens, with learned positions: x_BCHW -> x_BTD."""

    def __init__(self, inputs: Sequence[int], patch: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = _picture(inputs)
        if height % patch or breadth % patch:
            raise TypeError(f"a picture of {height} x {breadth} has no whole patches of {patch}")
        self.square = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Embedding((height // patch) * (breadth // patch), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x_BTD = self.square(x).flatten(2).transpose(1, 2)  # noqa: N806
        y: torch.Tensor = x_BTD + self.position.weight
        return y


class Mean(nn.Module):
    """Mean over tokens: x_BTD -> x_BD."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(dim=1)


def vit(
    inputs: Sequence[int],
    classes: int,
    *,
    width: int = 32,
    depth: int = 3,
    heads: int = 4,
    patch: int = 0,
    dropout: float = 0.0,
    exits: bool = False,
) -> Layers:
    """A small vision transformer: patches, blocks, mean over tokens, head.

    40k parameters on 8x8x1. `patch` 0: a quarter of the picture's side, at least 1.
    Shape: x_BCHW -> logits (B, classes)
    Source: arXiv 2010.11929, with mean instead of a class token.
    """
    _, height, breadth = _picture(inputs)
    patches = Patches(inputs, patch or max(1, min(height, breadth) // 4), width)
    blocks: Layers = OrderedDict(
        (f"block{i}", Block(width, heads, dropout, causal=False)) for i in range(1, depth + 1)
    )
    ends = [
        nn.Sequential(nn.LayerNorm(width), Mean(), nn.Linear(width, classes))
        for _ in range(depth if exits else 1)
    ]
    if exits:
        return OrderedDict([("patches", patches), *_stages(blocks, ends, depth).items()])
    return OrderedDict([("patches", patches), *blocks.items(), ("head", ends[0])])


def logits(samples: int, classes: int) -> Layers:
    """No model: what peers answer to each sample of a public set, for plans of mode distill."""
    return OrderedDict(logits=Table(samples, classes, counts=1))


def prototypes(classes: int, width: int) -> Layers:
    """No model: the mean embedding of each label, for plans of mode distill."""
    return OrderedDict(prototypes=Table(classes, width, counts=classes))


ZOO: dict[str, Callable[..., Layers]] = {
    "mlp": mlp,
    "cnn": cnn,
    "vgg11": vgg11,
    "transformer": transformer,
    "vit": vit,
    "logits": logits,
    "prototypes": prototypes,
}
TABLES = ("logits", "prototypes")  # no models: they answer no samples
MODELS = tuple(sorted(set(ZOO) - set(TABLES)))


def arguments(name: str) -> dict[str, Any]:
    """What a recipe of this name may say, and what it means where it does not; {} if unknown."""
    known = inspect.signature(ZOO[name]).parameters if isinstance(name, str) and name in ZOO else {}
    return {key: parameter.default for key, parameter in known.items()}
