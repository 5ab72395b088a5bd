"""What a comparison starts from: parts of the data, the public set, models and their values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "PART",
    "part_address",
    "pretrained",
    "pretrained_at",
    "public_address",
    "residents_of",
    "with_options",
]

PART = "part"  # for a public set: one part more of the data than there are holders
Json = dict[str, Any]


def with_options(address: str, *options: str) -> str:
    """An address with further options."""
    given = [option for option in options if option]
    return address + "".join(
        f"{'&' if '?' in address or i else '?'}{option}" for i, option in enumerate(given)
    )


def part_address(config: Mapping[str, Any], number: int, seed: int) -> str:
    """The address of one holder's data, `number` from 0; the part behind the last is public."""
    parts = len(config["holders"]) + (config.get("public") == PART)
    part = f"part={number + 1}/{parts}"
    return with_options(config["data"], part, config["partition"], f"seed={seed}")


def public_address(config: Mapping[str, Any], seed: int) -> str:
    """The address of what all holders have; "" where there is nothing."""
    if config.get("public") == PART:
        return part_address(config, len(config["holders"]), seed)
    return str(config.get("public", ""))


def residents_of(config: Mapping[str, Any]) -> list[Json]:
    """Recipes of the holders' own models, in their order; none where there are none."""
    given = config.get("resident", [])
    kinds = given if isinstance(given, list) else [given]
    return [kinds[i % len(kinds)] for i in range(len(config["holders"]))] if kinds else []


def pretrained_at(place: Path, head: str | None, classes: int) -> Json:
    """What says which model of Hugging Face is meant, its values too: others give other runs."""
    folder = place if place.is_dir() else place.parent
    content = blake3()
    for path in sorted(folder.glob("*.safetensors")):
        content.update_mmap(path)
    labels = classes if head not in (None, "causal") else None
    weights = content.hexdigest()[:32]
    return {"place": str(place.absolute()), "head": head, "labels": labels, "weights": weights}


def pretrained(
    config: Mapping[str, Any], recipe: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[Json, nn.Module]:
    """Recipe and module of the comparison's model of Hugging Face, with its values.

    `recipe` adds adapters or names of layers; `seed` makes what the folder does not have.
    Raises: Misuse.
    """
    from mfd.cli.models import HfOrder, from_hf

    told = config["hf"]
    return from_hf(
        HfOrder(Path(told["place"]), told.get("head"), told.get("labels"), seed=seed), recipe
    )
