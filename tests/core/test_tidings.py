"""What is broadcast: RECLAIM and STALE, checked by everybody on the way, understood by few."""

from __future__ import annotations

from typing import Any

import pytest

from mfd.core.certificates import Certificate, seal_certificate
from mfd.core.effects import Effect
from mfd.core.memberframes import PAYLOAD_BYTES_MAX
from mfd.core.messages import Kind, Message, encode_message
from mfd.core.tidings import CUSTODY, Tidings
from mfd.packet.errors import PacketError
from mfd.sim.keys import SimKey
from tests.core.lone import Lone

SHADOW = SimKey(b"shadow")


class Hearer(Lone):
    def __init__(self, name: bytes = b"hearer") -> None:
        super().__init__(seed=name)
        self.heard: list[Message] = []
        self.said: list[tuple[int, bytes, int]] = []
        self.tidings = Tidings(self.ctx)
        self.tidings.deliver = self.heard.append

    def publish(self, kind: int, payload: bytes, seconds: int) -> bytes:
        self.said.append((kind, payload, seconds))
        return b""

    def judge(self, kind: Kind, *body: Any, network: str = "mfd", signer: SimKey = SHADOW) -> int:
        return self.tidings.judge(
            CUSTODY, encode_message(kind, body, network=network, signer=signer)
        )


def certificate(**over: Any) -> bytes:
    known: dict[str, Any] = {
        "walker": bytes(32),
        "epoch": (1, SHADOW.public_key),
        "hop": 0,
        "revision": 0,
        "source": SHADOW.public_key,
        "target": SHADOW.public_key,
        "manifest": bytes(32),
        "previous": bytes(32),
        "stored": b"",
        "shadows": (),
        "released": (),
        "nonce": b"",
        "lease_us": 1_000_000,
    }
    return seal_certificate(Certificate(**{**known, **over}), SHADOW)


def test_what_concerns_everybody_is_delivered_and_goes_on() -> None:
    """Rules: M-31"""
    it = Hearer()
    assert it.judge(Kind.RECLAIM, bytes(32), bytes(32)) == 600
    assert it.judge(Kind.STALE, bytes(32), [certificate()]) == 86_400
    assert [message.kind for message in it.heard] == [Kind.RECLAIM, Kind.STALE]


def test_our_own_word_is_not_delivered_to_us() -> None:
    """Rules: M-31"""
    it = Hearer()
    assert it.judge(Kind.RECLAIM, bytes(32), bytes(32), signer=it.key) == 600
    assert not it.heard


def test_what_no_honest_neighbour_passes_on_is_an_error() -> None:
    """Rules: M-31"""
    it = Hearer()
    broken = certificate()[:-1] + b"\0"
    for kind, body, network in (
        (Kind.CANCEL, (bytes(32),), "mfd"),
        (Kind.RECLAIM, (bytes(32), bytes(32)), "other"),
        (Kind.STALE, (bytes(32), [broken]), "mfd"),
        (Kind.STALE, (bytes(32), [certificate(), broken]), "mfd"),
    ):
        with pytest.raises(PacketError):
            it.judge(kind, *body, network=network)
    with pytest.raises(PacketError):
        it.tidings.judge(CUSTODY, b"nonsense")
    assert not it.heard


def test_other_kinds_are_left_alone() -> None:
    """Rules: M-26"""
    it = Hearer()
    assert it.tidings.judge(7, b"of the future") == 0
    assert it.ctx.counters == {"rumours_unknown": 1}


def test_what_is_spread_would_be_taken() -> None:
    """Rules: M-31"""
    it = Hearer()
    largest = [certificate(shadows=(bytes(32),) * 4) for _ in range(2)]
    it.tidings.spread(it, Kind.STALE, bytes(32), largest)  # type: ignore[arg-type]
    [(kind, payload, seconds)] = it.said
    assert (kind, seconds) == (CUSTODY, 86_400)
    assert len(payload) <= PAYLOAD_BYTES_MAX
    other = Hearer(b"other")
    assert other.tidings.judge(kind, payload) == seconds
    assert other.heard[0].sender == it.key.public_key
    effects: list[Effect] = it.step()
    assert not effects
