"""A snake of adapters: a small language model travels over peers, and its base only once.

The base learns from a text at home, and is frozen then. Each peer holds lines that nobody else has;
adapters of two blocks learn at every stop, and after the first lap they alone cross the links.
Run: python examples/lora_snake.py [--text FILE] [--laps N] [--epochs N]
"""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np

import mfd
from mfd.learn import Holding
from mfd.learn.hf import build
from mfd.learn.layers import find_layers, frozen_count
from mfd.learn.memory import state_bytes
from mfd.learn.recipes import init
from mfd.learn.training import Options, measure, train

LENGTH, PEERS = 32, 4
HOME = "the king goes to the castle. a ship sails on the sea. my horse runs over the field. "
LINES = (  # for those who bring no text: each peer's words are its own
    "the queen stays in the garden and sees the king. ",
    "a wind blows from the west and moves the ship. ",
    "your dog sleeps by the door while the horse runs. ",
    "her brother reads a book to the king of the sea. ",
)
RECIPE = {
    "hf": {
        "class": "AutoModelForCausalLM",
        "config": {
            "model_type": "gpt2", "n_layer": 4, "n_embd": 48, "n_head": 4, "n_positions": LENGTH,
            "vocab_size": 128, "bos_token_id": 0, "eos_token_id": 0,
            "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
        },
    },
}  # fmt: skip
LORA = {"r": 8, "alpha": 16, "targets": ["c_attn", "c_fc", "c_proj"]}


def windows(text: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first windows of LENGTH characters, and the same one character later."""
    tokens = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) % 128
    count = min(count, (len(tokens) - 1) // LENGTH)
    shape = (count, LENGTH)
    return tokens[: count * LENGTH].reshape(shape), tokens[1 : count * LENGTH + 1].reshape(shape)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--text", help="ASCII text, cut into a part for each peer")
    parser.add_argument("--laps", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=3.0)
    asked = parser.parse_args(argv)
    texts = [HOME * 24, *(line * 42 for line in LINES)]
    if asked.text:
        whole = Path(asked.text).read_text()
        cuts = [i * len(whole) // (PEERS + 1) for i in range(PEERS + 2)]
        texts = [whole[low:high] for low, high in pairwise(cuts)]

    base = init(RECIPE, seed=1)
    every = ((0, len(find_layers(base))),)
    print("the base learns at home", flush=True)
    at_home = Holding(*windows(texts[0], 512), 128)
    train(base, at_home, trained=every, options=Options(epochs=20, batch=8, lr=5e-3, distill=0.0))
    model = build({**RECIPE, "lora": LORA}, base)
    test = windows("".join(text[-1_000:] for text in texts[1:]), 128)
    before = measure(model, Holding(*test, 128))["loss"]
    layers = find_layers(model)
    print(f"{len(layers)} layers, of which {frozen_count(layers)} are frozen", flush=True)
    run = mfd.run(
        model,
        data=lambda part, _: windows(texts[part + 1], 512),
        test=test,
        topology=f"ring:{PEERS}",
        mode="snake",
        layers_per_stop=1,
        full_laps=1,
        laps=asked.laps,
        epochs=asked.epochs,
        batch=8,
        lr=1e-2,
        distill=0.0,
        follow=mfd.show,
    )
    came = [int(entry["came_bytes"]) for entry in run.history if entry["kind"] == "stop"]
    losses = [entry["loss"] for entry in run.history if entry["kind"] == "measured"]
    print(f"the model has {state_bytes(model)} bytes; a stop received", came)
    print("perplexity by lap:", [f"{np.exp(loss):.1f}" for loss in (before, *losses)])


if __name__ == "__main__":
    main()
