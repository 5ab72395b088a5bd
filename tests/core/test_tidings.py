"""What is broadcast: RECLAIM and STALE, checked by everybody on the way, understood by few."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from mfd.core import tidings
from mfd.core.certificates import Certificate, seal_certificate
from mfd.core.effects import Effect, Report
from mfd.core.memberframes import PAYLOAD_BYTES_MAX
from mfd.core.messages import Kind, Message, encode_message
from mfd.core.tidings import CUSTODY, EVIDENCE, Tidings
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
        self.tidings.gossip = self  # type: ignore[assignment]

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
    it.tidings.spread(Kind.STALE, bytes(32), largest)
    [(kind, payload, seconds)] = it.said
    assert (kind, seconds) == (CUSTODY, 86_400)
    assert len(payload) <= PAYLOAD_BYTES_MAX
    other = Hearer(b"other")
    assert other.tidings.judge(kind, payload) == seconds
    assert other.heard[0].sender == it.key.public_key
    effects: list[Effect] = it.step()
    assert not effects


def test_two_certificates_that_exclude_each_other_are_shown_to_everybody() -> None:
    """Rules: M-34"""
    it = Hearer()
    pair = sorted([certificate(), certificate(manifest=b"m" * 32)])
    it.judge(Kind.STALE, bytes(32), [pair[0], certificate(hop=1)])
    it.judge(Kind.STALE, bytes(32), [pair[0]])
    assert not it.said
    it.judge(Kind.STALE, bytes(32), [pair[1]])
    assert it.said == [(EVIDENCE, msgpack.packb(pair), 86_400)]
    other = Hearer(b"other")
    assert other.tidings.judge(*it.said[0][:2]) == 86_400
    for hearer in (it, other):
        [report] = [effect for effect in hearer.step() if isinstance(effect, Report)]
        assert report.kind == "equivocated"
        assert report.fields["peer"] == SHADOW.public_key.hex()
    assert not other.said  # it goes on as it is


def test_evidence_that_proves_nothing_is_an_error() -> None:
    """Rules: M-34"""
    it = Hearer()
    first, second = sorted([certificate(), certificate(manifest=b"m" * 32)])
    for pair in (
        [second, first],
        [first, first],
        [first],
        [first, second[:-1] + b"\0"],
        sorted([first, certificate(hop=1)]),
        sorted([first, certificate(revision=1)]),
        sorted([first, certificate(walker=b"w" * 32)]),
        {},
        [[first, second]],
    ):
        with pytest.raises(PacketError):
            it.tidings.judge(EVIDENCE, msgpack.packb(pair))
    with pytest.raises(PacketError):
        it.tidings.judge(EVIDENCE, b"\xc1")
    assert not it.step()


def test_certificates_to_compare_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules: M-34"""
    monkeypatch.setattr(tidings, "CERTIFICATES_MAX", 4)
    it = Hearer()
    for number in range(6):
        it.judge(Kind.STALE, bytes(32), [certificate(hop=number)])
    it.judge(Kind.STALE, bytes(32), [certificate(hop=0, manifest=b"m" * 32)])
    assert not it.said  # forgotten
    it.judge(Kind.STALE, bytes(32), [certificate(hop=5, manifest=b"m" * 32)])
    assert len(it.said) == 1
