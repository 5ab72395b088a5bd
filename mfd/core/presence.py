"""What a peer tells others about itself: one signed record, made anew before it ends.

Rules of this file: `seq` rises with every record and begins above that of every earlier start.
Source: spec/membership.md, section "Peer records".
"""

from __future__ import annotations

from collections.abc import Iterable

from mfd.core.context import Context
from mfd.core.events import CommandFailed
from mfd.core.recordbook import RecordBook
from mfd.core.records import (
    ADDRESSES_MAX,
    CUSTODIAN,
    OPEN_NETWORK,
    SEQ_MAX,
    is_address,
    seal_peer_record,
)

__all__ = ["Presence"]

SEQS_PER_BOOT = 1 << 16


class Presence:
    """Our own record in the book."""

    def __init__(self, ctx: Context, book: RecordBook) -> None:
        self._ctx = ctx
        self._book = book
        self._addresses: tuple[str, ...] = ()
        self._seq: int | None = None  # until the store is open

    def restored(self, boot: int) -> None:
        """The store is open: say who we are, and again before that ends."""
        self._seq = boot * SEQS_PER_BOOT
        self._renew()

    def _renew(self) -> None:
        self._sign()
        self._ctx.after(self._ctx.config.peer_record_valid_us // 2, self._renew)

    def addressed(self, addresses: Iterable[str]) -> None:
        """Tell others from now on where we can be dialled. Raises: CommandFailed."""
        told = tuple(addresses)
        wrong = [address for address in told if not is_address(address)]
        if wrong or len(told) > ADDRESSES_MAX:
            raise CommandFailed(
                f"{', '.join(wrong or told)}: others dial at most {ADDRESSES_MAX} addresses, "
                "each host:port"
            )
        self._addresses = told
        if self._seq is not None:
            self._sign()

    def _sign(self) -> None:
        assert self._seq is not None
        config = self._ctx.config
        self._seq = min(self._seq + 1, SEQ_MAX)
        record = seal_peer_record(
            config.network,
            self._ctx.signer,
            seq=self._seq,
            addresses=self._addresses,
            caps=CUSTODIAN * config.custodian + OPEN_NETWORK * config.open_network,
            valid_us=config.peer_record_valid_us,
        )
        self._book.learn((record.sealed, 0), self._ctx.now_us)

    def heed(self) -> None:
        """A newer record of ours is about, from a life that our disk forgot: go beyond it."""
        entry = self._book.get(self._ctx.me, self._ctx.now_us)
        if entry is not None and self._seq is not None and entry.record.seq > self._seq:
            self._seq = entry.record.seq
            self._sign()
