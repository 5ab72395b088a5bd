from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.net import handshake
from mfd.net.handshake import Dialler, Listener, Refusal, Refused, Terms
from mfd.net.keys import KeyPair, verify

ANN, BEN = KeyPair.from_seed(b"a" * 32), KeyPair.from_seed(b"b" * 32)
TOKEN = b"t" * 32
TERMS = Terms(network="lab", network_key=b"k" * 32)


def dialler(terms: Terms = TERMS, keys: KeyPair = ANN, **options: Any) -> Dialler:
    return Dialler(keys, verify, terms, nonce=b"1" * 32, **options)


def listener(terms: Terms = TERMS, keys: KeyPair = BEN, **options: Any) -> Listener:
    return Listener(keys, verify, terms, nonce=b"2" * 32, **options)


def shake(one: Dialler, other: Listener) -> bytes:
    hello = other.answer(one.hello())
    return one.finish(other.finish(one.answer(hello), TOKEN))


def code_of(one: Dialler, other: Listener) -> Refusal:
    with pytest.raises(Refused) as caught:
        shake(one, other)
    assert caught.value.here
    return caught.value.code


def test_both_sides_learn_who_the_other_is() -> None:
    """Rules: L-06, L-09, L-10."""
    one, other = dialler(certificate=b"der"), listener(certificate=b"der")
    assert shake(one, other) == TOKEN
    assert (one.peer, other.peer) == (BEN.public_key, ANN.public_key)


def test_every_message_is_small() -> None:
    one, other = dialler(Terms(network="n" * 64)), listener(Terms(network="n" * 64))
    hello = one.hello()
    answer = other.answer(hello)
    assert max(len(hello), len(answer), len(one.answer(answer))) <= 512


@pytest.mark.parametrize(
    ("one", "other", "code"),
    [
        (dialler(), listener(replace(TERMS, network="lab2")), Refusal.NETWORK),
        (dialler(), listener(replace(TERMS, network_key=b"x" * 32)), Refusal.KEY),
        (dialler(), listener(replace(TERMS, network_key=b"")), Refusal.KEY),
        (dialler(replace(TERMS, network_key=b"")), listener(), Refusal.KEY),
        (dialler(), listener(keys=ANN), Refusal.SELF),
        (dialler(expected=b"x" * 32), listener(), Refusal.IDENTITY),
        (dialler(certificate=b"mitm"), listener(certificate=b"der"), Refusal.PROOF),
        (dialler(certificate=b"mitm"), listener(), Refusal.PROOF),
        (dialler(replace(TERMS, allow=frozenset())), listener(), Refusal.NOT_ALLOWED),
        (dialler(), listener(replace(TERMS, allow=frozenset([b"x"]))), Refusal.NOT_ALLOWED),
    ],
)
def test_refusals(one: Dialler, other: Listener, code: Refusal) -> None:
    """Rules: L-08, L-09, L-10, L-11, L-12, L-13."""
    assert code_of(one, other) is code


def test_allowed_and_expected_peers_pass() -> None:
    """Rules: L-12, L-13."""
    allow = frozenset([ANN.public_key, BEN.public_key])
    terms = replace(TERMS, allow=allow)
    assert shake(dialler(terms, expected=BEN.public_key), listener(terms)) == TOKEN


def test_the_list_is_not_told_before_the_proof() -> None:
    """A stranger who claims an id learns nothing of the allow-list. Rules: L-13."""
    other = listener(replace(TERMS, allow=frozenset()))
    one = dialler()
    answer = other.answer(one.hello())
    forged = msgpack.packb([3, bytes(64), bytes(32)])
    with pytest.raises(Refused) as caught:
        other.finish(forged, TOKEN)
    assert caught.value.code is Refusal.PROOF
    assert one.answer(answer)


def test_version() -> None:
    """Rules: L-07."""
    hello = msgpack.unpackb(dialler().hello())
    hello[1] = [2, 3]
    with pytest.raises(Refused) as caught:
        listener().answer(msgpack.packb(hello))
    assert caught.value.code is Refusal.VERSION
    hello[1] = [7, 1]
    assert listener().answer(msgpack.packb(hello))


def test_a_change_of_any_byte_on_the_way_is_refused() -> None:
    """Rules: L-06, L-09."""

    def change(message: bytes, at: int) -> bytes:
        return message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]

    lengths = [len(m) for m in _messages()]
    for step, length in enumerate(lengths[:3]):
        for at in range(length):
            one, other = dialler(), listener()
            with pytest.raises(Refused):
                tampered(one, other, lambda n, m, s=step, a=at: change(m, a) if n == s else m)


def tampered(one: Dialler, other: Listener, on_the_way: Callable[[int, bytes], bytes]) -> None:
    second = other.answer(on_the_way(0, one.hello()))
    third = one.answer(on_the_way(1, second))
    one.finish(other.finish(on_the_way(2, third), TOKEN))


def _messages() -> list[bytes]:
    one, other = dialler(), listener()
    first = one.hello()
    second = other.answer(first)
    third = one.answer(second)
    return [first, second, third, other.finish(third, TOKEN)]


def test_a_replay_of_an_old_proof_is_refused() -> None:
    """Rules: L-09."""
    old = _messages()
    fresh = Listener(BEN, verify, TERMS, nonce=b"3" * 32)
    fresh.answer(old[0])
    with pytest.raises(Refused) as caught:
        fresh.finish(old[2], TOKEN)
    assert caught.value.code is Refusal.PROOF


def test_a_proof_is_not_good_for_the_other_role() -> None:
    """A dialler cannot be made to sign what a listener says. Rules: L-09."""
    one, other = dialler(), listener()
    _, _, signature, mac = msgpack.unpackb(other.answer(one.hello()))
    with pytest.raises(Refused) as caught:
        other.finish(msgpack.packb([3, signature, mac]), TOKEN)
    assert caught.value.code is Refusal.PROOF


def test_a_refusal_carries_a_number_and_the_reader_has_the_words() -> None:
    """Rules: L-15."""
    message = handshake.refusal(Refusal.NETWORK)
    assert msgpack.unpackb(message) == [5, 3]
    one = dialler()
    one.hello()
    with pytest.raises(Refused, match=r"refused by the other side: .*different networks") as caught:
        one.answer(message)
    assert caught.value.code is Refusal.NETWORK
    assert not caught.value.here
    for unknown in (0, 13, -1, "x"):
        with pytest.raises(Refused) as caught:
            dialler().answer(msgpack.packb([5, unknown]))
        assert caught.value.code is Refusal.MALFORMED


@given(
    st.binary(max_size=200)
    | st.builds(
        msgpack.packb,
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-9, 9)
            | st.binary(max_size=40)
            | st.text(max_size=9),
            lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=3), inner),
            max_leaves=12,
        ),
    )
)
def test_any_bytes_are_answered_or_refused(message: bytes) -> None:
    """Rules: L-06."""
    one, other = dialler(), listener()
    one.hello()
    for take in (
        one.answer,
        one.finish,
        other.answer,
        lambda m: other.finish(m, TOKEN),
        handshake.read_bulk,
        handshake.read_bound,
    ):
        with suppress(Refused):  # and nothing else
            take(message)


def test_messages_above_the_limit_are_refused() -> None:
    """Rules: L-06."""
    with pytest.raises(Refused) as caught:
        listener().answer(dialler().hello() + bytes(4096))
    assert caught.value.code is Refusal.MALFORMED


def test_bulk_messages() -> None:
    """Rules: L-16."""
    message = handshake.bind_bulk(TOKEN)
    assert handshake.is_bulk(message)
    assert not handshake.is_bulk(dialler().hello())
    assert handshake.read_bulk(message) == TOKEN
    handshake.read_bound(handshake.bound())
    with pytest.raises(Refused):
        handshake.read_bulk(handshake.bind_bulk(b"short"))


def test_terms_are_checked() -> None:
    with pytest.raises(ValueError, match="64 bytes"):
        Terms(network="")
    with pytest.raises(ValueError, match="16 bytes"):
        Terms(network_key=b"short")
