"""The modules of a model as a tree: which of them hold given tensors, and nothing else.

Rules of this file: a model is walked once; a question costs as much as the tensors it names.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from torch import nn

__all__ = ["Tree"]


class Tree:
    """Names of modules in the order of `named_modules`, and how many tensors lie in each."""

    def __init__(self, module: nn.Module) -> None:
        self._place = {name: place for place, (name, _) in enumerate(module.named_modules())}
        self._whole = _beneath(module.state_dict(keep_vars=True))

    def largest(self, keys: Iterable[str]) -> list[str]:
        """The largest modules all of whose tensors are among these, or else their parents."""
        wanted = set(keys)
        mine = _beneath(wanted)
        whole = [n for n, count in mine.items() if count == self._whole[n] and n in self._place]
        found: list[str] = []
        for name in sorted(whole, key=self._place.__getitem__):
            if not found or not name.startswith(found[-1] + "."):  # what lies in one follows it
                found.append(name)
        covered = set(found)
        bare = (key for key in wanted if covered.isdisjoint(_ancestors(key)))
        return found + sorted({key.rpartition(".")[0] for key in bare if "." in key})


def _beneath(keys: Iterable[str]) -> Counter[str]:
    """How many of these tensors lie in each module."""
    return Counter(name for key in keys for name in _ancestors(key))


def _ancestors(key: str) -> Iterator[str]:
    """Names of the modules in which a tensor lies."""
    at = key.find(".")
    while at >= 0:
        yield key[:at]
        at = key.find(".", at + 1)
