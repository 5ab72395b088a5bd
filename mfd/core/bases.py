"""What differences may build upon: older content of the same layers that both custodians hold.

Rules of this file: only objects of the walker's own lineage are named or used, since whoever gets a
difference and the content learns the base; they are of the size of what builds upon them.
Source: spec/custody.md, C-35 and C-36; spec/transfer.md, T-28.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from mfd.core.custody import Version, Walker
from mfd.core.messages import BASES_MAX

__all__ = ["Named", "common", "named", "remember"]

Named = list[list[bytes]]  # for each object lacked, in their order; empty: for none


def remember(walker: Walker, keep: int) -> None:
    """Note the versions that a walker has now; of those before them, `keep` stay as bases."""
    now = [v for v in (walker.version, walker.cache) if v is not None]
    known = {version.digest for version in now}
    before = [v for v in walker.earlier if v.digest not in known]
    walker.earlier = (*now, *before[:keep])


def _lineage(walker: Walker) -> list[Version]:
    held = walker.held.version if walker.held else None
    now = (walker.version, walker.cache, held, *walker.siblings, *walker.parts.values())
    return [*(version for version in now if version is not None), *walker.earlier]


def named(
    walker: Walker, version: Version, lacks: Iterable[bytes], here: Collection[bytes]
) -> Named:
    """For each object that is lacking of a version: what a difference to it may build upon.

    The newest content comes first; `here` are the objects on this disk. All empty: no list at all.
    """
    older: dict[tuple[str, int], dict[bytes, None]] = {}
    for before in _lineage(walker):
        for ref in before.manifest.layers:
            if ref.digest in here:
                older.setdefault((ref.name, ref.raw_bytes), {})[ref.digest] = None
    places: dict[bytes, tuple[str, int]] = {}
    for ref in version.manifest.layers:
        places.setdefault(ref.digest, (ref.name, ref.raw_bytes))
    found = [list(older.get(places[digest], ()))[:BASES_MAX] for digest in lacks]
    return found if any(found) else []


def common(
    walker: Walker, objects: Mapping[bytes, int], lacks: Sequence[bytes], told: Named
) -> dict[bytes, bytes]:
    """For each object asked for: the first of what the receiver has named that is here too."""
    ours: dict[bytes, int] = {}
    for version in _lineage(walker):
        ours.update(version.objects)
    chosen: dict[bytes, bytes] = {}
    for digest, bases in zip(lacks, told, strict=False):
        size = objects.get(digest, 0)
        fit = (base for base in bases if base != digest and size and ours.get(base) == size)
        if (base := next(fit, None)) is not None:
            chosen[digest] = base
    return chosen
