"""What this peer holds, and the names under which that is announced.

Rules of this file: each announced name, ancestors included, has one record; only what has changed
is announced anew.
Source: spec/routing.md, R-24, R-25.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mfd.core.names import announced
from mfd.core.routing import Routes

__all__ = ["Holdings"]


class Holdings(Mapping[str, int]):
    """Data name -> samples."""

    def __init__(self) -> None:
        self._samples: dict[str, int] = {}
        self._labels: dict[str, bytes] = {}
        self._told: dict[str, tuple[int, bytes]] = {}

    def __getitem__(self, name: str) -> int:
        return self._samples[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def hold(
        self, routes: Routes, name: str, samples: int, now_us: int, *, labels: bytes = b""
    ) -> None:
        """Hold data, or other data, under a name. Raises: ValueError if that is not possible."""
        routes.hold(name, samples, now_us, labels)
        self._samples[name], self._labels[name] = samples, labels
        self._told[name] = (samples, labels)
        self._tell(routes, now_us)

    def unhold(self, routes: Routes, name: str, now_us: int) -> None:
        """Withdraw a name; harmless if it is not held."""
        self._samples.pop(name, None)
        self._labels.pop(name, None)
        self._tell(routes, now_us)

    def _tell(self, routes: Routes, now_us: int) -> None:
        """Announce what is new, withdraw what is gone. An ancestor too many is left out."""
        wanted = {n: (s, self._labels.get(n, b"")) for n, s in announced(self._samples).items()}
        for name in [name for name in self._told if name not in wanted]:
            routes.unhold(name, now_us)
            del self._told[name]
        for name, (samples, labels) in wanted.items():
            if self._told.get(name) != (samples, labels) and routes.may_hold(name):
                routes.hold(name, samples, now_us, labels)
                self._told[name] = (samples, labels)
