"""Our own record: made anew in time, and always beyond every earlier one."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.events import CommandFailed
from mfd.core.presence import Presence
from mfd.core.recordbook import Entry, RecordBook
from mfd.core.records import CUSTODIAN, OPEN_NETWORK, seal_peer_record
from mfd.sim.keys import sim_verify
from tests.core.lone import Lone


class Self(Lone):
    def __init__(self, config: Config | None = None) -> None:
        super().__init__(config)
        self.book = RecordBook(self.ctx.config, sim_verify)
        self.presence = Presence(self.ctx, self.book)

    @property
    def entry(self) -> Entry:
        entry = self.book.get(self.key.public_key, self.ctx.now_us)
        assert entry is not None
        return entry


def test_seq_begins_above_every_earlier_start_and_rises() -> None:
    """Rules: M-03, M-04"""
    it = Self()
    it.presence.addressed(["10.0.0.1:1"])
    it.presence.restored(3)
    assert it.entry.record.seq == (3 << 16) + 1
    assert it.entry.record.addresses == ("10.0.0.1:1",)
    it.run(1_799)
    assert it.entry.record.seq == (3 << 16) + 1
    it.run(2)
    assert it.entry.record.seq == (3 << 16) + 2
    it.presence.addressed(["10.0.0.2:1"])
    assert it.entry.record.seq == (3 << 16) + 3
    it.run(36_000)
    assert it.entry.record.seq == (3 << 16) + 23


def test_caps_say_what_it_is_ready_for() -> None:
    """Rules: M-02"""
    for config, caps in (
        (Config(), 0),
        (Config(custodian=True), CUSTODIAN),
        (Config(custodian=True, open_network=True), CUSTODIAN | OPEN_NETWORK),
    ):
        it = Self(config)
        it.presence.restored(1)
        assert it.entry.record.caps == caps


def test_a_record_from_a_forgotten_life_is_surpassed() -> None:
    """Rules: M-03"""
    it = Self()
    it.presence.restored(1)
    record = seal_peer_record(
        "mfd", it.key, seq=9 << 16, addresses=[], caps=0, valid_us=3_600_000_000
    )
    it.book.learn((record.sealed, 0), 0)
    it.presence.heed()
    assert it.entry.record.seq == (9 << 16) + 1
    it.presence.heed()
    assert it.entry.record.seq == (9 << 16) + 1


@pytest.mark.parametrize("wrong", [["nowhere"], ["10.0.0.1:1"] * 9])
def test_addresses_that_nobody_could_dial_are_the_owners_mistake(wrong: list[str]) -> None:
    """Rules: M-02"""
    it = Self()
    it.presence.restored(1)
    with pytest.raises(CommandFailed, match="host:port"):
        it.presence.addressed(wrong)
    assert it.entry.record.seq == (1 << 16) + 1
