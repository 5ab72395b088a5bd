"""Two versions of a small model of several chunks a layer, for tests of whole packets."""

from __future__ import annotations

from typing import Any

import numpy as np

from mfd.packet import Packet

MIB = 1 << 20
DICE = np.random.default_rng(11)
OLD: dict[str, dict[str, Any]] = {
    f"block{i}": {
        "weight": DICE.normal(0, 0.02, (400, 800)).astype("<f4"),
        "bias": DICE.normal(0, 0.02, 800).astype("<f4"),
        "steps": np.array(i),
    }
    for i in range(3)
}
NEW: dict[str, dict[str, Any]] = {
    layer: {
        name: (value + DICE.normal(0, 2e-5, value.shape)).astype("<f4")
        if value.dtype == "f4"
        else value
        for name, value in tensors.items()
    }
    for layer, tensors in OLD.items()
}
BEFORE, AFTER = Packet.from_tensors(OLD, seq=1), Packet.from_tensors(NEW, seq=2)


def same(packet: Packet, layers: dict[str, dict[str, Any]]) -> bool:
    """Whether a packet holds these tensors, to the bit."""
    found = packet.tensors()
    return found.keys() == layers.keys() and all(
        found[layer][name].array().tobytes() == np.asarray(value).tobytes()
        for layer, tensors in layers.items()
        for name, value in tensors.items()
    )
