"""Trees that broadcasts go over: each grew out of one peer's flood and serves who is near it.

A link is eager or lazy, tree by tree. In a tree that is not known here all links are eager, so
that forgetting one costs copies and never a rumour.

Rules of this file: who founds a tree is at its root, all others know how many hops they are away
from it. Trees are bounded in number and in time, whatever neighbours send.
Source: spec/membership.md, section "Gossip".
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mfd.core.context import Context
from mfd.core.memberframes import TREE_BYTES

__all__ = ["Trees", "tree_of"]

TREES_TELL = 4  # with fewer a network may be larger than it seems


def tree_of(ident: bytes) -> bytes:
    """Name the tree that a rumour founds."""
    return ident[:TREE_BYTES]


@dataclass(slots=True)
class _Tree:
    """This peer's part in one tree."""

    ends_us: int  # forgotten then
    young_us: int = 0  # until then one may begin a broadcast over it
    depth: int = -1  # hops from its root; -1: not known
    lazy: set[int] = field(default_factory=set)  # links


class Trees:
    """The trees that one peer is part of."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._trees: dict[bytes, _Tree] = {}

    def __len__(self) -> int:
        return len(self._trees)

    def choose(self, ident: bytes) -> bytes:
        """Say over which tree a rumour of this peer goes: one with a near root, or a new one.

        Where many were founded lately the nearest must do, or a burst of broadcasts were a burst
        of floods.
        """
        now_us, most = self._ctx.now_us, self._ctx.config.trees_max
        young = [(t.depth, -t.young_us, n) for n, t in self._trees.items() if now_us < t.young_us]
        if young:
            depth, _, nearest = min(young)
            if depth <= self._near_hops() or len(young) >= most:
                return nearest
        self.grow(tree_of(ident), ident, None, 0, now_us)
        return tree_of(ident)

    def _near_hops(self) -> int:
        """How far a root may be: from there a tree is so many hops deeper than from its root.

        How deep it is from its root, some trees together tell: hardly any peer is more than one
        hop farther from a root than this one is from the farthest.
        """
        config = self._ctx.config
        live = (t for t in self._trees.values() if self._ctx.now_us < t.ends_us)
        depths = [t.depth for t in live if t.depth >= 0]
        spare = config.broadcast_hops - 1 - max(depths) if len(depths) >= TREES_TELL else 0
        return max(spare, config.tree_near_hops)

    def grow(self, name: bytes, ident: bytes, link: int | None, hops: int, born_us: int) -> None:
        """Hear a rumour for the first time, over `link`; None: it is our own.

        The rumour that founds a tree tells how far its root is; `born_us` says when.
        """
        config = self._ctx.config
        tree = self._find(name)
        if tree is None:
            self._trees.pop(name, None)  # ended: the new one goes last
            tree = self._trees[name] = _Tree(self._ctx.now_us + 2 * config.tree_us)
            self._bound()
        if link is not None:
            tree.lazy.discard(link)
        if name == tree_of(ident):
            tree.young_us, tree.depth = born_us + config.tree_us, hops

    def _find(self, name: bytes) -> _Tree | None:
        tree = self._trees.get(name)
        return tree if tree is not None and self._ctx.now_us < tree.ends_us else None

    def _bound(self) -> None:
        """Forget what has ended, and the oldest beyond the limit."""
        now_us, most = self._ctx.now_us, 2 * self._ctx.config.trees_max
        while len(self._trees) > most or self._trees[next(iter(self._trees))].ends_us < now_us:
            del self._trees[next(iter(self._trees))]  # all live as long, so the first ends first

    def is_eager(self, name: bytes, link: int) -> bool:
        """Say whether rumours of a tree go over a link at once."""
        tree = self._find(name)
        return tree is None or link not in tree.lazy

    def make_lazy(self, name: bytes, link: int) -> bool:
        """Take a link out of a tree; say whether it was in it."""
        tree = self._find(name)
        if tree is None:
            return True
        if link in tree.lazy:
            return False
        tree.lazy.add(link)
        return True

    def make_eager(self, name: bytes, link: int) -> None:
        """Put a link into a tree."""
        tree = self._find(name)
        if tree is not None:
            tree.lazy.discard(link)

    def link_down(self, link: int) -> None:
        """Forget a link."""
        for tree in self._trees.values():
            tree.lazy.discard(link)
