"""A snake on your own module and your own data: which layers learn, in which order, in what memory.

    python examples/own_model_snake.py [--short]
    mfd layers py:examples.own_model_snake:own_model --allow-py

The module is of a class that is in no zoo: an embedding, three residual blocks and a head. Peers
have unlike memory: with `layers_per_stop=0` each trains as many blocks as it has room for, and the
walker goes on behind what all have trained.
"""

import sys
from dataclasses import replace

import numpy as np
import torch
from torch import nn

import mfd
from mfd.topology import make

KIB = 1024


class Residual(nn.Module):
    """x + f(x), as wide as it is."""

    def __init__(self, width):
        super().__init__()
        self.inside = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x):
        return x + self.inside(x)


def own_model():
    """Five layers; what lies before the block runs once a stop, without autograd."""
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Linear(16, 32), Residual(32), Residual(32), Residual(32), nn.Linear(32, 4)
    )


def own_data(part, parts):
    """Four classes by the signs of two hidden directions; every holder has its own sample."""
    truth = np.random.default_rng(0).normal(size=(16, 2))
    x = np.random.default_rng(1 + part).normal(size=(200, 16)).astype("float32")
    signs = (x @ truth > 0).astype(int)
    return x, signs[:, 0] + 2 * signs[:, 1]


def network(budgets):
    """A ring whose nodes have so much memory for a model and its training."""
    ring = make("ring", len(budgets))
    pairs = zip(ring.nodes.items(), budgets, strict=True)
    return replace(ring, nodes={n: replace(node, memory_bytes=b) for (n, node), b in pairs})


def journey(title, laps, budgets=(0, 0, 0), **plan):
    """Send the model off; print what each stop does."""
    print(title, flush=True)
    run = mfd.run(
        own_model(),
        data=own_data,
        topology=network(budgets),
        test=own_data(99, 1),
        laps=laps,
        full_laps=0,
        epochs=2.0,
        lr=0.01,
        seed=1,
        follow=mfd.show,
        **plan,
    )
    stops = [h for h in run.history if h["kind"] == "stop"]
    best = [h["accuracy"] for h in run.history if h["kind"] == "measured"][-1]
    print(f"{title}: layers {' '.join(s['layers'] for s in stops)}")
    print(f"  accuracy {best:.3f}, {run.wire_bytes / 1e6:.2f} MB crossed links")


def main():
    laps = 2 if "--short" in sys.argv else 6
    journey("one block a lap", laps, layers_per_stop=1)
    # Layers 1 to 3 alone, and the head stays as it came: for a model whose ends are good already.
    journey(
        "there and back, the middle alone",
        laps,
        layers_per_stop=1,
        order="boustrophedon",
        body=(1, 4),
        head=False,
    )
    journey("all blocks at each stop, one at a time", laps, layers_per_stop=1, order="sweep")
    # The first peer has room for all, the others for a part; budgets are for a model this small.
    journey("as memory allows", laps, budgets=(0, 200 * KIB, 150 * KIB), layers_per_stop=0)


if __name__ == "__main__":  # so that `mfd layers py:...:own_model` runs no journey
    main()
