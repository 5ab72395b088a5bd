"""Over which tree a broadcast goes, and how long and how many trees are remembered."""

from __future__ import annotations

from mfd.core.config import Config
from mfd.core.gossip import rumour_id
from mfd.core.trees import Trees, tree_of
from tests.core.lone import SECOND, Lone


class Grove(Lone):
    def __init__(self, **config: int) -> None:
        super().__init__(Config(**config))
        self.trees = Trees(self.ctx)
        self.said = 0

    def flood(self, word: bytes, hops: int, age_s: int = 0) -> bytes:
        """Hear the rumour that founds a tree; return the tree."""
        ident = rumour_id(1, word)
        born_us = self.ctx.now_us - age_s * SECOND
        self.trees.grow(tree_of(ident), ident, 1, hops, born_us)
        return tree_of(ident)

    def choose(self) -> bytes | None:
        """Say something; return the tree that it goes over, None for one of its own."""
        self.said += 1
        ident = rumour_id(1, self.said.to_bytes(2, "big"))
        tree = self.trees.choose(ident)
        return None if tree == tree_of(ident) else tree


def test_a_tree_with_a_near_root_serves_and_none_else() -> None:
    """Rules: M-41"""
    it = Grove()
    it.flood(b"far", 3)
    assert it.choose() is None
    it = Grove()
    far, near = it.flood(b"far", 3), it.flood(b"near", 2)
    assert it.choose() == near
    nearer = it.flood(b"nearer", 1)
    it.flood(b"as near as that", 2)
    assert it.choose() == nearer != far


def test_in_a_small_network_most_roots_are_near() -> None:
    """Rules: M-41"""
    it = Grove()
    trees = [it.flood(bytes((number,)), 4) for number in range(3)]
    assert it.choose() is None  # three tell nothing yet
    it = Grove()
    trees = [it.flood(bytes((number,)), 4) for number in range(4)]
    assert it.choose() == min(trees)
    it = Grove()
    trees = [it.flood(bytes((number,)), hops) for number, hops in enumerate((5, 4, 4, 4))]
    assert it.choose() is None
    it = Grove()
    trees = [it.flood(bytes((number,)), hops) for number, hops in enumerate((12, 12, 12, 2))]
    assert it.choose() == trees[-1]


def test_of_two_roots_as_near_the_later_one_serves() -> None:
    """Rules: M-41"""
    it = Grove()
    it.flood(b"before", 2)
    it.step(SECOND)
    later = it.flood(b"later", 2)
    assert it.choose() == later


def test_our_own_tree_serves_us_until_it_is_old() -> None:
    """Rules: M-41"""
    it = Grove()
    assert it.choose() is None
    (ours,) = it.trees._trees
    it.step(29 * SECOND)
    assert it.choose() == ours
    it.step(SECOND)
    assert it.choose() is None


def test_the_age_of_a_tree_is_that_of_its_first_rumour() -> None:
    """Rules: M-41"""
    it = Grove()
    tree = it.flood(b"under way for long", 1, age_s=20)
    it.step(9 * SECOND)
    assert it.choose() == tree
    it.step(SECOND)
    assert it.choose() is None


def test_who_has_missed_the_flood_does_not_begin_over_its_tree() -> None:
    """Rules: M-41"""
    it = Grove()
    it.trees.grow(b"unheard.", rumour_id(1, b"a later one"), 1, 1, 0)
    assert it.choose() is None


def test_a_burst_of_broadcasts_is_no_burst_of_floods() -> None:
    """Rules: M-41"""
    it = Grove()
    for number in range(15):
        it.flood(bytes((number,)), 20 - number)
    assert it.choose() is None  # the sixteenth
    it = Grove()
    trees = [it.flood(bytes((number,)), 20 - number) for number in range(16)]
    assert it.choose() == trees[-1]
    it.step(31 * SECOND)
    assert it.choose() is None


def test_trees_are_bounded_and_forgetting_one_makes_all_links_eager() -> None:
    """Rules: M-27, M-42"""
    it = Grove()
    first = it.flood(b"first", 5)
    assert it.trees.make_lazy(first, 2)
    assert not it.trees.make_lazy(first, 2)
    assert not it.trees.is_eager(first, 2)
    for number in range(31):
        it.flood(bytes((number,)), 5)
    assert not it.trees.is_eager(first, 2)
    for number in range(100, 200):
        it.flood(bytes((number,)), 5)
        assert len(it.trees) == 32
    assert it.trees.is_eager(first, 2)


def test_a_tree_is_remembered_for_twice_the_time() -> None:
    """Rules: M-42"""
    it = Grove()
    tree = it.flood(b"first", 2)
    it.trees.make_lazy(tree, 2)
    it.step(59 * SECOND)
    assert not it.trees.is_eager(tree, 2)
    it.step(SECOND)
    assert it.trees.is_eager(tree, 2)
    it.step(SECOND)
    it.flood(b"second", 2)
    assert len(it.trees) == 1


def test_a_link_that_is_gone_takes_no_room() -> None:
    """Rules: M-42"""
    it = Grove()
    tree = it.flood(b"first", 2)
    it.trees.make_lazy(tree, 2)
    it.trees.link_down(2)
    assert it.trees.is_eager(tree, 2)
