"""Who has what in a comparison: parts of the data, the public set, models of the holders' own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PART", "part_address", "public_address", "residents_of", "with_options"]

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
