"""How a walker's next version comes to be: signed, durable, and only then the one that counts.

Rules of this file: a version exists once its manifest is signed and stored; nothing else writes
`walker.version` of a walker owned here.
Source: spec/walk.md, W-01.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from mfd.core.context import Context
from mfd.core.custody import Version, Walker
from mfd.core.parking import Parking
from mfd.core.walkers import Walkers
from mfd.packet.manifest import Manifest, Progress, sign_manifest

__all__ = ["Commits"]


class Commits:
    """Commits versions of the walkers owned here."""

    def __init__(self, ctx: Context, walkers: Walkers, parking: Parking) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._parking = parking

    def commit(
        self,
        walker: Walker,
        version: Version,
        manifest: Manifest,
        digests: tuple[bytes, ...],
        then: Callable[[], None],
    ) -> None:
        """Sign the next version and make it durable; the version before is no longer ours."""
        seq = max(manifest.seq, version.manifest.seq + 1)
        signed = replace(manifest, seq=seq, trainer=self._ctx.me)
        try:
            record, signature = sign_manifest(signed, self._ctx.signer)
        except ValueError as error:  # a manifest at its limits, or claims beyond them
            self._parking.park(walker, f"the version cannot be signed: {error}")
            return
        walker.version = Version(record, signature, signed)
        self._walkers.save(walker, objects=digests, then=then)

    def progress(self, walker: Walker, version: Version, progress: Progress) -> None:
        """Commit a version in which nothing has learned, and go on."""
        manifest = replace(
            version.manifest, parents=(version.digest,), trained=(), progress=progress, claims={}
        )
        self.commit(walker, version, manifest, (), partial(self._parking.again, walker, 0))
