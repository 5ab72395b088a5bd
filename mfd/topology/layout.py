"""Where to put the nodes of a network on paper: distances on it follow those in hops.

Rules of this file: no chance; the same topology gives the same picture.
Source: pivot scaling, Brandes, Pich (2006), and stress majorisation, Gansner, Koren, North (2005);
no code of theirs.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from mfd.topology.values import Topology

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = ["place"]

PIVOTS = 50  # nodes from which distances are measured
EXACT_MAX = 400  # up to so many nodes all distances count
ROUNDS = 300
STILL = 1e-4  # of a hop: nobody moves any more
JITTER = 0.05  # of a hop, so that nodes with the same distances do not hide each other


def place(topology: Topology) -> dict[str, tuple[float, float]]:
    """Return a point for every node, within the unit square; islands lie apart."""
    import numpy as np

    names = list(topology.nodes)
    if not names:
        return {}
    linked = _links(topology, names)
    points = _scale(_hops(linked, _pivots(linked)))
    if len(names) <= EXACT_MAX:
        points = _majorise(_hops(linked, list(range(len(names)))), points)
    points -= points.mean(axis=0)
    _, turned = np.linalg.eigh(points.T @ points)
    points = points @ turned[:, ::-1]  # the long side lies flat
    points -= points.min(axis=0)
    span = float(points.max()) or 1.0
    pairs = zip(names, points, strict=True)
    return {name: (float(x) / span, float(y) / span) for name, (x, y) in pairs}


def _links(topology: Topology, names: list[str]) -> list[list[int]]:
    index = {name: i for i, name in enumerate(names)}
    linked: list[list[int]] = [[] for _ in names]
    for edge in topology.edges:
        if edge.a in index and edge.b in index:
            linked[index[edge.a]].append(index[edge.b])
            linked[index[edge.b]].append(index[edge.a])
    return linked


def _search(linked: list[list[int]], first: int) -> list[int]:
    """Hops from a node to all others, -1 where there is no way."""
    row = [-1] * len(linked)
    row[first] = 0
    queue = deque([first])
    while queue:
        here = queue.popleft()
        for other in linked[here]:
            if row[other] < 0:
                row[other] = row[here] + 1
                queue.append(other)
    return row


def _pivots(linked: list[list[int]]) -> list[int]:
    """Nodes far from each other: the next is the one farthest from those chosen."""
    chosen = [0]
    nearest = [float("inf")] * len(linked)
    while len(chosen) < min(PIVOTS, len(linked)):
        row = _search(linked, chosen[-1])
        nearest = [min(n, d if d >= 0 else n) for n, d in zip(nearest, row, strict=True)]
        chosen.append(max(range(len(linked)), key=nearest.__getitem__))
    return chosen


def _hops(linked: list[list[int]], pivots: list[int]) -> Floats:
    """Distances: (nodes, pivots). Between islands: a bit more than the widest."""
    import numpy as np

    hops = np.array([_search(linked, pivot) for pivot in pivots], np.float64).T
    return np.where(hops < 0, hops.max() + 2, hops)


def _scale(hops: Floats) -> Floats:
    """First places, (nodes, 2): the two widest directions of the distances to the pivots."""
    import numpy as np

    squares = hops**2
    centred = squares - squares.mean(axis=0) - squares.mean(axis=1, keepdims=True) + squares.mean()
    _, directions = np.linalg.eigh(centred.T @ centred)
    points = centred @ directions[:, -2:] if hops.shape[1] > 1 else np.zeros((len(hops), 2))
    size = float(np.abs(points).max()) or 1.0
    points *= float(hops.max()) / (2 * size)
    turn = np.arange(len(hops)) * 2.399963229728653  # the golden angle: a spiral
    radius = JITTER * np.sqrt(np.arange(len(hops)) + 0.5)
    return np.asarray(points + np.stack((radius * np.cos(turn), radius * np.sin(turn)), axis=1))


def _majorise(hops: Floats, points: Floats) -> Floats:
    """Move all nodes until their distances fit the hops best, near pairs counting most."""
    import numpy as np

    weights = 1.0 / np.maximum(hops, 1.0) ** 2
    np.fill_diagonal(weights, 0.0)
    inverse = np.linalg.pinv(np.diag(weights.sum(axis=1)) - weights)
    for _ in range(ROUNDS):
        x, y = points[:, 0], points[:, 1]
        apart = np.hypot(x[:, None] - x[None, :], y[:, None] - y[None, :])
        pull = -weights * hops / np.maximum(apart, 1e-9)
        np.fill_diagonal(pull, 0.0)
        np.fill_diagonal(pull, -pull.sum(axis=1))
        moved = inverse @ (pull @ points)
        still = float(np.abs(moved - points).max()) < STILL
        points = moved
        if still:
            break
    return points
