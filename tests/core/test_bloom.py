"""The filter over peers: never wrong about its members, rarely about others."""

from __future__ import annotations

from blake3 import blake3

from mfd.core.bloom import make_filter, matches


def mark(number: int) -> bytes:
    return blake3(number.to_bytes(4, "little")).digest(8)


def test_members_match_and_few_strangers_do() -> None:
    """Rules: R-26"""
    for size in (1, 5, 100):
        members = [mark(n) for n in range(size)]
        bits = make_filter(b"salt", members)
        assert all(matches(bits, b"salt", m) for m in members)
        strangers = sum(matches(bits, b"salt", mark(n)) for n in range(10_000, 20_000))
        assert strangers < 100


def test_another_salt_errs_about_others() -> None:
    members = [mark(n) for n in range(256)]
    wrong = []
    for salt in (b"one", b"two"):
        bits = make_filter(salt, members)
        wrong.append({n for n in range(1_000, 9_000) if matches(bits, salt, mark(n))})
    assert wrong[0]
    assert len(wrong[0] & wrong[1]) < len(wrong[0]) / 2


def test_an_empty_filter_holds_nobody() -> None:
    assert not matches(make_filter(b"salt", []), b"salt", mark(1))


def test_the_bits_are_those_of_the_specification() -> None:
    """Rules: R-26"""
    digest = blake3(b"salt" + mark(7)).digest(20)
    bits = bytearray(2)
    for at in range(0, 20, 4):
        place = int.from_bytes(digest[at : at + 4], "little") % 16
        bits[place // 8] |= 1 << place % 8
    assert make_filter(b"salt", [mark(7)]) == bytes(bits)
