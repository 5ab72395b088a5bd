"""A dial that ends because a link stands already is none that failed."""

from __future__ import annotations

import pytest

from mfd.core.config import Config
from mfd.core.effects import Dial, Effect, Report
from mfd.core.events import DialFailed, Event, Joined, LinkDown, LinkUp, Restored, Ticked
from mfd.core.peer import Peer
from mfd.sim.keys import SimKey, sim_verify
from tests.core.lone import SECOND

ADDRESS = "10.0.0.2:47600"
OTHER = SimKey(b"other").public_key
DUPLICATE = DialFailed(ADDRESS, "there is already a link to this peer", OTHER)


class One:
    """A peer that was told to join one address."""

    def __init__(self, *, open_network: bool) -> None:
        config = Config(open_network=open_network)
        self.peer = Peer(signer=SimKey(b"one"), verify=sim_verify, config=config, seed=b"one")
        self.now_us = 0
        self.tell(Restored(1, {}, {}))
        self.dials = self.of(Dial, self.tell(Joined(ADDRESS)))

    def tell(self, event: Event) -> list[Effect]:
        return self.peer.handle(event, self.now_us)

    def wait(self, seconds: int) -> list[Effect]:
        """Let time pass; the links stay as they are."""
        out: list[Effect] = []
        for _ in range(seconds * 4):
            self.now_us += SECOND // 4
            out += self.tell(Ticked())
        return out

    def unreachable(self, effects: list[Effect]) -> list[str]:
        return [e.fields["reason"] for e in self.of(Report, effects) if e.kind == "unreachable"]

    @staticmethod
    def of(kind: type, effects: list[Effect]) -> list:
        return [effect for effect in effects if isinstance(effect, kind)]


@pytest.mark.parametrize("open_network", [False, True])
def test_a_link_that_stands_counts_for_the_address_that_its_peer_answers_at(
    open_network: bool,
) -> None:
    """Rules: M-22"""
    one = One(open_network=open_network)
    assert one.dials == [Dial(ADDRESS)]
    one.tell(LinkUp(1, OTHER, "10.0.0.2:9", outbound=False))  # it has dialled us at the same time
    effects = one.tell(DUPLICATE)
    assert not one.unreachable(effects)
    assert not one.peer.status().members.unreachable
    assert not one.of(Dial, effects + one.wait(2))
    effects = one.tell(LinkDown(1, "gone")) + one.wait(3)
    assert Dial(ADDRESS) in effects  # it is kept, or a contact, as before


@pytest.mark.parametrize("open_network", [False, True])
def test_a_link_that_only_the_other_side_sees_is_told_when_it_stays(open_network: bool) -> None:
    """Rules: M-22"""
    one = One(open_network=open_network)
    effects = one.tell(DUPLICATE) + one.wait(5)
    assert not one.unreachable(effects)
    assert not one.peer.status().members.unreachable
    assert Dial(ADDRESS) in effects
    assert one.unreachable(one.tell(DUPLICATE)) == [DUPLICATE.reason]
    assert ADDRESS in one.peer.status().members.unreachable
