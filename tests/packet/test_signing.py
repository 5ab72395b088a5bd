from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mfd.packet import Fault, PacketError, open_sealed, seal, signing_input
from tests.packet.keys import HashSigner, verify_ed25519, verify_hash

ALICE = HashSigner("alice")


def test_signing_input() -> None:
    """Rules: P-14"""
    assert signing_input("mfd.x.v1", b"ab") == b"mfd.x.v1\x00\x02" + bytes(7) + b"ab"


def test_a_domain_that_runs_into_the_body_is_another_input() -> None:
    assert signing_input("a", b"b") != signing_input("ab", b"")


def test_sealed_record() -> None:
    """Rules: P-15"""
    record = seal("mfd.x.v1", b"body", ALICE)
    assert record[:32] == ALICE.public_key
    assert record[96:] == b"body"
    assert open_sealed("mfd.x.v1", memoryview(record), verify_hash, 4) == (
        ALICE.public_key,
        b"body",
    )


@pytest.mark.parametrize(
    ("record", "domain", "fault"),
    [
        (seal("mfd.x.v1", b"body", ALICE), "mfd.y.v1", Fault.SIGNATURE),
        (seal("mfd.x.v1", b"body", ALICE)[:-1], "mfd.x.v1", Fault.SIGNATURE),
        (seal("mfd.x.v1", b"body", ALICE)[:95], "mfd.x.v1", Fault.TRUNCATED),
        (seal("mfd.x.v1", b"body!", ALICE), "mfd.x.v1", Fault.LIMIT),
        (b"", "mfd.x.v1", Fault.TRUNCATED),
    ],
)
def test_refusals(record: bytes, domain: str, fault: Fault) -> None:
    """Rules: P-15"""
    with pytest.raises(PacketError) as caught:
        open_sealed(domain, record, verify_hash, 4)
    assert caught.value.fault is fault


def test_size_is_checked_before_the_signature() -> None:
    """Rules: P-15"""

    def never(*_: object) -> bool:
        raise AssertionError("the verifier was asked")

    with pytest.raises(PacketError):
        open_sealed("mfd.x.v1", bytes(101), never, 4)


def test_ed25519() -> None:
    """Rules: P-14"""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = key.public_key().public_bytes_raw()
    signature = key.sign(signing_input("mfd.x.v1", b"body"))
    record = public + signature + b"body"
    assert open_sealed("mfd.x.v1", record, verify_ed25519, 99) == (public, b"body")
