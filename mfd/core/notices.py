"""The story of a walker, told where it happens and at its home, where its user looks.

Rules of this file: news is shown and never acted upon; what comes from others is bounded.
Source: spec/walk.md, section "News".
"""

from __future__ import annotations

from collections.abc import Mapping

from mfd.core.context import Context
from mfd.core.courier import Courier
from mfd.core.custody import Walker
from mfd.core.messages import Kind, Message
from mfd.core.walkers import Walkers

__all__ = ["Notices"]

FIELDS_MAX = 24
KEY_CHARACTERS_MAX = 64
TEXT_CHARACTERS_MAX = 256
KINDS = (
    "chosen",
    "part",
    "stop",
    "merged",
    "skipped",
    "measured",
    "handed",
    "reissued",
    "parked",
    "silent",
    "learning failed",
)


class Notices:
    """Tells and hears news of walkers."""

    def __init__(self, ctx: Context, walkers: Walkers, courier: Courier) -> None:
        self._ctx = ctx
        self._walkers = walkers
        self._courier = courier

    def tell(self, walker: Walker, kind: str, fields: Mapping[str, str | int | float]) -> None:
        """Report here, and to the walker's home."""
        seq = walker.version.manifest.seq if walker.version else 0
        told = {**fields, "peer": self._ctx.me.hex(), "seq": seq}
        self._ctx.report(kind, **{**told, "walker": walker.id.hex()})
        if walker.plan.home != self._ctx.me:
            self._courier.send(walker.plan.home, Kind.NOTICE, walker.id, kind, told)

    def on_notice(self, message: Message) -> None:
        """News of a walker that was born here; believed as far as its signer is."""
        walker_id, kind, fields = message.body
        walker = self._walkers.get(walker_id)
        if walker is None or walker.plan.home != self._ctx.me or kind not in KINDS:
            return
        plain = {
            key[:KEY_CHARACTERS_MAX]: value[:TEXT_CHARACTERS_MAX]
            if isinstance(value, str)
            else value
            for key, value in list(fields.items())[:FIELDS_MAX]
            if isinstance(value, str | int | float)
        }
        peer = message.sender.hex()
        self._ctx.report(kind, **{**plain, "peer": peer, "walker": walker_id.hex()})
