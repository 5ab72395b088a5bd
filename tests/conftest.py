"""The order of the files: the long ones first, so that no core works on alone at the end."""

from __future__ import annotations

import pytest

LONG = (  # the most of the processor's seconds first
    "cli/test_journeys.py",
    "test_examples.py",
    "sim/test_ablations.py",
    "cli/test_compare.py",
    "cli/test_fleet.py",
    "cli/test_travel.py",
    "fuzz/test_fuzz.py",
    "cli/test_demo.py",
    "sim/test_campaign.py",
    "cli/test_resident.py",
    "net/test_faults.py",
    "sim/test_crashes.py",
    "learn/test_trainer.py",
    "learn/test_sharing.py",
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep xdist from sorting files by how many tests they have: the longest have few."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first; every other one stays where it is."""
    rank = {f"tests/{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
