"""Rounds and needless copies of many broadcasts soon after each other, each from another peer.

    python benchmarks/trees.py --peers 10000 --broadcasts 60      ten seconds of one core

Peers in a random network of 5 to 8 neighbours each go by the core's own rule (`mfd.core.trees`);
all else is left out: rounds in step, no loss, no coming and going, all within half a minute. Beside
it stand the ways that were not taken: one tree for all, with the first hops over all links or not.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from time import process_time
from typing import cast

from blake3 import blake3

from mfd.core.config import Config
from mfd.core.context import Context
from mfd.core.trees import Trees, tree_of

DEGREES = (5, 6, 6, 7, 7, 8, 8, 8)  # as in a large open network: 7.2 in the mean
MARKS = (5, 10, 20, 50, 100, 200, 400)
ROUNDS_MAX = 9


@dataclass(slots=True)
class Still:
    """A context whose time stands still."""

    config: Config
    now_us: int = 0


@dataclass(frozen=True, slots=True)
class Heard:
    """One broadcast."""

    rounds: int
    twice: float  # copies that were not needed, a peer
    flood: bool


class Network:
    """Peers, their neighbours, and the trees that they remember."""

    def __init__(self, peers: int, seed: int, trees_max: int) -> None:
        self.dice = dice = Random(seed)
        stubs = [peer for peer in range(peers) for _ in range(dice.choice(DEGREES))]
        dice.shuffle(stubs)
        near: list[set[int]] = [set() for _ in range(peers)]
        for one, other in zip(stubs[::2], stubs[1::2], strict=False):
            if one != other:
                near[one].add(other)
                near[other].add(one)
        self.near = [sorted(peers) for peers in near]
        still = cast(Context, Still(Config(trees_max=trees_max)))
        self.trees = [Trees(still) for _ in near]

    def say(self, number: int, all_links: int = 0, *, choose: bool = True) -> Heard:
        """Let one peer speak; for `all_links` hops lazy links are used too, and no tree changes."""
        ident = blake3(number.to_bytes(4, "big")).digest()
        root = self.dice.randrange(len(self.near))
        trees = self.trees[root]
        tree = trees.choose(ident) if choose else next(iter(trees._trees), tree_of(ident))
        flood = tree == tree_of(ident)
        if flood and not choose:
            trees.grow(tree, ident, None, 0, 0)
        hops, copies, hop = {root: 0}, 0, 0
        wave = list(self._sends(tree, root, root, all_links > 0))
        while wave:
            hop, copies, under_way = hop + 1, copies + len(wave), wave
            self.dice.shuffle(under_way)
            wave = []
            for source, peer in under_way:
                if peer not in hops:
                    hops[peer] = hop
                    if flood:
                        self.trees[peer].grow(tree, ident, source, hop, 0)
                    wave += self._sends(tree, peer, source, hop < all_links)
                elif flood and self.trees[peer].make_lazy(tree, source):
                    self.trees[source].make_lazy(tree, peer)
        assert len(hops) == len(self.near)
        return Heard(max(hops.values()), (copies - len(hops) + 1) / len(hops), flood)

    def _sends(self, tree: bytes, peer: int, source: int, all_: bool) -> Iterator[tuple[int, int]]:
        eager = self.trees[peer].is_eager
        for other in self.near[peer]:
            if other != source and (all_ or eager(tree, other)):
                yield peer, other


def run(name: str, network: Network, broadcasts: int, say: Callable[[int], Heard]) -> None:
    """Print what broadcasts took, all up to some number."""
    start, heard = process_time(), list[Heard]()
    for number in range(broadcasts):
        heard.append(say(number))
        if number + 1 not in MARKS and number + 1 != broadcasts:
            continue
        rounds = [one.rounds for one in heard]
        late = sum(one > ROUNDS_MAX for one in rounds)
        print(
            f"{name:<34} {number + 1:>4} broadcasts: {sum(one.flood for one in heard):>3} floods, "
            f"rounds {sum(rounds) / len(rounds):5.2f} mean, {max(rounds):>2} most, {late:>3} over "
            f"{ROUNDS_MAX}; needless {sum(one.twice for one in heard) / len(heard):.2f} a peer, "
            f"last {heard[-1].twice:.3f}; {process_time() - start:.0f} s",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", type=int, default=10_000)
    parser.add_argument("--broadcasts", type=int, default=60)
    parser.add_argument("--trees", type=int, nargs="*", default=[Config().trees_max])
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    print(f"python benchmarks/trees.py --peers {args.peers} --seed {args.seed}")
    for trees_max in args.trees:
        network = Network(args.peers, args.seed, trees_max)
        run(f"trees by root, {trees_max} at most", network, args.broadcasts, network.say)
    for links in range(6):
        network, few = Network(args.peers, args.seed, 1), min(args.broadcasts, 10)
        name = f"one tree, {links} hops over all links"
        run(name, network, few, lambda n, w=network, k=links: w.say(n, k, choose=False))


if __name__ == "__main__":
    main()
