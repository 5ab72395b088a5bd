"""The real boxes: what opens, what does not, and known answers of the primitives they stand on."""

from __future__ import annotations

import pytest

from mfd.net.sealing import Sealing

SEEDS = (bytes(range(32)), bytes(range(32, 64)))


def pair(transcripts: tuple[bytes, bytes] = (b"t", b"t")):
    one, other = (Sealing().fresh(seed) for seed in SEEDS)
    return (
        one.agree(other.public, transcripts[0], dialler=True),
        other.agree(one.public, transcripts[1], dialler=False),
    )


def test_records_open_at_the_other_end_only_in_order_and_unchanged() -> None:
    """Rules: T-25"""
    one, other = pair()
    boxes = [one.seal(text) for text in (b"first", b"second", b"")]
    assert [len(box) for box in boxes] == [5 + 16, 6 + 16, 16]
    assert other.open(memoryview(boxes[0])) == b"first"
    with pytest.raises(ValueError, match="repeated"):
        other.open(boxes[0])
    assert other.open(boxes[2]) == b""  # the failed one has used up its number
    with pytest.raises(ValueError, match="changed"):
        one.open(one.seal(b"own"))  # directions have keys of their own


def test_another_transcript_gives_other_keys() -> None:
    """Rules: T-24"""
    one, other = pair((b"t", b"u"))
    with pytest.raises(ValueError, match="changed"):
        other.open(one.seal(b"text"))


@pytest.mark.parametrize("key", [bytes(32), bytes(31), b"\1" + bytes(31)])
def test_a_key_that_is_none_is_refused(key: bytes) -> None:
    """A point of small order would make the shared secret known. Rules: T-24"""
    with pytest.raises(ValueError):  # noqa: PT011 - whatever the library says
        Sealing().fresh(SEEDS[0]).agree(key, b"t", dialler=True)


def test_the_bytes_are_those_of_the_specification() -> None:
    """X25519 of two seeds, HKDF with the transcript as salt, GCM with record 1. Rules: T-25"""
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    one, other = (X25519PrivateKey.from_private_bytes(seed) for seed in SEEDS)
    shared = one.exchange(other.public_key())
    keys = HKDF(SHA256(), 64, salt=b"t", info=b"mfd.circuit.v1").derive(shared)
    box = AESGCM(keys[:32]).encrypt(b"\1" + bytes(11), b"text", None)
    assert pair()[0].seal(b"text") == box
