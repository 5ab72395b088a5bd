"""Custody messages to the part of a peer that each concerns.

Rules of this file: it decides nothing but who is asked first where two may have asked.
Source: spec/custody.md, section "Messages".
"""

from __future__ import annotations

from typing import assert_never

from mfd.core.context import Context
from mfd.core.errands import Errands
from mfd.core.handover import Handover
from mfd.core.lease import Leases
from mfd.core.messages import Kind, Message
from mfd.core.notices import Notices
from mfd.core.reception import Reception

__all__ = ["Post"]


class Post:
    """Hands out what a courier brings."""

    def __init__(
        self,
        ctx: Context,
        *,
        handover: Handover,
        reception: Reception,
        leases: Leases,
        errands: Errands,
        notices: Notices,
    ) -> None:
        self._ctx = ctx
        self._handover = handover
        self._reception = reception
        self._leases = leases
        self._errands = errands
        self._notices = notices

    def deliver(self, message: Message) -> None:
        """Hand a signed message to the part that it concerns."""
        match message.kind:
            case Kind.OFFER:
                self._reception.on_offer(message)
            case Kind.ACCEPT:
                if not self._handover.on_accept(message) and not self._errands.on_accept(message):
                    self._ctx.count("answers_to_nothing")
            case Kind.REFUSE:
                if not self._handover.on_refuse(message) and not self._errands.on_refuse(message):
                    self._ctx.count("answers_to_nothing")
            case Kind.STORED:
                self._handover.on_stored(message)
            case Kind.GRANT:
                self._reception.on_grant(message)
            case Kind.OWNED:
                self._handover.on_owned(message)
            case Kind.CANCEL:
                self._reception.on_cancel(message)
            case Kind.RELEASE:
                self._leases.on_release(message)
            case Kind.RELEASED:
                self._leases.on_released(message)
            case Kind.PROGRESS:
                self._leases.on_progress(message)
            case Kind.PROGRESS_ACK:
                self._leases.on_progress_ack(message)
            case Kind.RECLAIM:
                self._leases.on_reclaim(message)
            case Kind.STALE:
                self._leases.on_stale(message)
            case Kind.ERRAND:
                self._errands.on_errand(message)
            case Kind.RESULT:
                self._errands.on_result(message)
            case Kind.FAILED:
                self._errands.on_failed(message)
            case Kind.NOTICE:
                self._notices.on_notice(message)
            case _:
                assert_never(message.kind)
