"""What is broadcast, and what it means here: signed custody messages that concern everybody.

    rumour kind 1: | custody message of type RECLAIM or STALE, signed by its sender |

RECLAIM asks, past any relay that hides the owner, whether a walker lives; STALE shows the epoch
that somebody has issued, so that an older owner stops.

Rules of this file: a broadcast says nothing that its sender could not have said to each by itself.
Source: spec/membership.md, section "What is broadcast".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mfd.core.certificates import open_certificate
from mfd.core.context import Context
from mfd.core.gossip import Gossip
from mfd.core.memberframes import PAYLOAD_BYTES_MAX
from mfd.core.messages import Kind, Message, decode_message, encode_message
from mfd.packet.errors import Fault, PacketError

__all__ = ["CUSTODY", "Tidings"]

CUSTODY = 1
VALID_S = {Kind.RECLAIM: 600, Kind.STALE: 24 * 3_600}  # a lost question, a split of a day


class Tidings:
    """Broadcasts made and understood by one peer."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self.deliver: Callable[[Message], None]

    def spread(self, gossip: Gossip, kind: Kind, *body: Any) -> None:
        """Tell everybody; what is too large for a broadcast stays between the two concerned."""
        config = self._ctx.config
        message = encode_message(kind, body, network=config.network, signer=self._ctx.signer)
        if len(message) <= PAYLOAD_BYTES_MAX:
            gossip.publish(CUSTODY, message, VALID_S[kind])

    def judge(self, kind: int, payload: bytes) -> int:
        """Check a broadcast, carry it out, and return for how many seconds it matters.

        Raises: PacketError for one that no honest neighbour passes on.
        """
        if kind != CUSTODY:
            self._ctx.count("rumours_unknown")
            return 0  # of a newer version; it cannot be checked, so it is not passed on
        config = self._ctx.config
        message = decode_message(payload, network=config.network, verify=self._ctx.verify)
        valid_s = VALID_S.get(message.kind)
        if valid_s is None:
            raise PacketError(Fault.FIELD, f"{message.kind.name} is not for everybody")
        if message.kind is Kind.STALE:  # every relay checks the same, so none is blamed wrongly
            for certificate in message.body[1]:
                open_certificate(certificate, self._ctx.verify)
        if message.sender != self._ctx.me:
            self.deliver(message)
        return valid_s
