"""A model travels over five peers in a ring; each trains the layers that the snake gives it.

Run: python examples/snake_in_ten_lines.py
"""

from sklearn.datasets import load_digits

import mfd
from mfd.learn.zoo import init

digits = load_digits()
x, y = (digits.images / 16).astype("float32")[:, None], digits.target
run = mfd.run(
    init({"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10}, seed=1),
    data=lambda part, parts: (x[:1440][part::parts], y[:1440][part::parts]),
    topology="ring:5",
    mode="snake",
    laps=3,
    test=(x[1440:], y[1440:]),
    follow=mfd.show,
)
print("route:", " -> ".join(run.route))
print("accuracy:", [f"{h['accuracy']:.3f}" for h in run.history if h["kind"] == "measured"])
print(f"{run.wire_bytes / 1e6:.2f} MB crossed links in {run.seconds:.1f} virtual seconds")
