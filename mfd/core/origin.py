"""The source records that a peer makes of what it holds itself.

Rules of this file: a seqno never goes back, not even after its name was withdrawn; it is raised on
demand, but neither far nor often, since each raise is told to the whole network.
Source: spec/routing.md, R-04, R-05, R-21.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mfd.core.config import Config
from mfd.core.names import peer_name
from mfd.core.sources import Record, is_name, seal_record
from mfd.packet.signing import Signer

__all__ = ["SEQNO_JUMP", "Origin"]

SEQNO_JUMP = 1 << 16  # at most, in answer to one request: heals a boot counter left behind


@dataclass(slots=True)
class _Own:
    """One name held here."""

    record: Record
    made_us: int
    wanted: int = 0  # seqno that somebody asked for


class Origin:
    """Names held here, each with its newest record."""

    def __init__(self, config: Config, signer: Signer, boot: int) -> None:
        self._config = config
        self._signer = signer
        self._before_first = (boot << 16) - 1
        self._seqnos: dict[str, int] = {}  # of names held once, too
        self._own: dict[str, _Own] = {}
        self._proof: _Own | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._own

    def check(self, name: str) -> None:
        """Raises: ValueError if the name cannot be announced."""
        me = peer_name(self._signer.public_key)
        if not is_name(name) or (name.startswith("@") and name != me):
            raise ValueError(f"{name!r} is not a data name that this peer can hold")
        if name not in self._own and len(self._own) >= self._config.names_max:
            raise ValueError(f"{name!r} is one name too many: the limit is names_max")

    def make(
        self, name: str, samples: int, now_us: int, *, labels: bytes = b"", seqno: int = 0
    ) -> Record:
        """Seal the next record of a name, with a seqno of at least `seqno`."""
        record = self._seal(name, samples, labels, seqno)
        self._own[name] = _Own(record, now_us)
        return record

    def _seal(self, name: str, samples: int, labels: bytes, seqno: int = 0) -> Record:
        newest = max(self._seqnos.get(name, self._before_first) + 1, seqno)
        self._seqnos[name] = newest
        valid_us = self._config.record_valid_us
        me, capacity = self._signer.public_key, 0 if name[:1] == "@" else self._config.capacity
        draft = Record(
            name, me, newest, samples, valid_us, b"", labels, capacity, self._config.token
        )
        return seal_record(self._config.network, draft, self._signer)

    def drop(self, name: str) -> bool:
        """Withdraw a name; False if it is not held."""
        return self._own.pop(name, None) is not None

    def proof(self, now_us: int) -> Record:
        """A record of this peer's own name, made for whoever seeks it: it need not be announced."""
        name = peer_name(self._signer.public_key)
        known = self._own.get(name, self._proof)
        if known is None or now_us >= known.made_us + self._half_us:
            known = self._proof = _Own(self._seal(name, 0, b""), now_us)
        return known.record

    @property
    def _half_us(self) -> int:
        return self._config.record_valid_us // 2

    def renewed(self, now_us: int) -> Iterator[Record]:
        """Make anew what is half expired."""
        for name, own in list(self._own.items()):
            if now_us >= own.made_us + self._half_us:
                yield self.make(name, own.record.samples, now_us, labels=own.record.labels)

    # what others ask for

    def want(self, name: str, seqno: int) -> None:
        """Somebody needs a newer seqno."""
        own = self._own[name]
        own.wanted = max(own.wanted, min(seqno, own.record.seqno + SEQNO_JUMP))

    def raised(self, now_us: int) -> Iterator[Record]:
        """Make the records that are wanted and due."""
        for name, own in list(self._own.items()):
            if own.wanted > own.record.seqno and now_us >= self._due_us(own):
                record = own.record
                yield self.make(
                    name, record.samples, now_us, labels=record.labels, seqno=own.wanted
                )

    def _due_us(self, own: _Own) -> int:
        return own.made_us + self._config.seqno_retry_us // 2

    def dues_us(self) -> list[int]:
        """When wanted records are due."""
        return [self._due_us(own) for own in self._own.values() if own.wanted > own.record.seqno]
