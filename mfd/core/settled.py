"""Who acts when an epoch begins without a hand-over, and what is home for good outlives that.

Rules of this file: a home that is done gives up nothing; it ends the other branch by an epoch.
Source: spec/custody.md, C-44.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from mfd.core import epochs
from mfd.core.certificates import seal_certificate
from mfd.core.context import Context
from mfd.core.custody import EPOCH_MAX, Walker
from mfd.core.walkers import Walkers

__all__ = ["Reissuer", "outlive"]


class Reissuer(Protocol):
    """Who acts once ownership has changed without a hand-over."""

    def owned(self, walker: Walker) -> None:
        """This peer has re-issued the walker."""

    def fenced(self, walker: Walker) -> None:
        """A newer epoch exists; stop."""

    def silent(self, walker: Walker, holder: bytes, rest_us: int) -> None:
        """The owner has missed its turn; in `rest_us` it is taken for lost."""


def outlive(
    ctx: Context,
    walkers: Walkers,
    walker: Walker,
    beyond: tuple[int, tuple[bytes, ...]],
    told: Callable[[], None],
) -> None:
    """Issue the epoch after another branch's; `told` once it is durable.

    `beyond` is the counter of that branch, and the shadows that have yet to be released. Nothing
    happens where a save is under way, since whoever goes on comes again, or where there is no room.
    """
    counter, shadows = beyond
    if walker.saving or walkers.broken or not walker.certificates or counter >= EPOCH_MAX:
        return
    next_one, before = epochs.next_epoch(walker, ctx.me, ctx.config.lease_us, ctx.verify)
    epoch = (max(counter + 1, next_one.epoch[0]), ctx.me)
    certificate = replace(next_one, epoch=epoch, shadows=shadows)
    walker.high_water = certificate.position
    walker.certificates = (seal_certificate(certificate, ctx.signer), before)
    ctx.count("branches_outlived")
    walkers.save(walker, then=told)
