"""An MLP, a CNN and a small ViT, each with few samples of few digits, teach each other.

Nothing but a small visiting model travels; the three stay where they are. It also asks them about
100 public pictures, whose labels nobody looks at. It takes minutes, and prints as it goes.
Run: python examples/three_architectures.py [LAPS]
"""

import copy
import sys

import numpy as np
import torch
from sklearn.datasets import load_digits

import mfd
from mfd.learn import Holding, zoo
from mfd.learn.training import Options, measure, train

laps = int(sys.argv[1]) if len(sys.argv) > 1 else 6
digits = load_digits()
x, y = (digits.images / 16).astype("float32")[:, None], digits.target
shape = {"inputs": [1, 8, 8], "classes": 10}
own = {
    "peer1": zoo.init({"zoo": "mlp", **shape}, seed=1),
    "peer2": zoo.init({"zoo": "cnn", **shape}, seed=2),
    "peer3": zoo.init({"zoo": "vit", **shape, "depth": 2}, seed=3),
}


def few(part: int, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """80 samples each: of digits 0 to 4, 3 to 7, 6 to 9 and 0."""
    rows = np.flatnonzero((y[:1000] - 3 * part) % 10 < 5)[:80]
    return x[rows], y[rows]


torch.set_num_threads(1)
test = Holding(x[1200:], y[1200:], 10)
alone = {}
for part, (name, model) in enumerate(own.items()):  # as long as it will learn with the others
    options = Options(epochs=10.0 * laps, batch=16, distill=0.0)
    learner, every = copy.deepcopy(model), ((0, len(model)),)
    train(learner, Holding(*few(part, 3), 10), trained=every, options=options)
    alone[name] = measure(learner, test)["accuracy"]
    print(f"    {name} alone: accuracy {alone[name]:.1%}", flush=True)

run = mfd.run(
    zoo.init({"zoo": "cnn", **shape, "width": 8}, seed=4),
    data=few,
    topology="ring:3",
    mode="distill",
    laps=laps,
    residents=own,
    public=(x[1000:1100], y[1000:1100]),
    test=(x[1100:1200], y[1100:1200]),
    epochs=10,
    batch=16,
    teach=3,
    follow=mfd.show,
)
for name, model in run.residents.items():
    taught = measure(model, test)["accuracy"]
    print(f"{name}: alone {alone[name]:.3f}, taught {taught:.3f}")
print(f"{run.wire_bytes / 1e6:.2f} MB crossed links for {len(run.route)} stops")
