"""Genesis and certificates: exact bytes, strict reading, and who may follow whom."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from blake3 import blake3

from mfd.core.certificates import (
    Certificate,
    Genesis,
    follows,
    open_certificate,
    open_genesis,
    seal_certificate,
    seal_genesis,
    walker_id,
)
from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import object_digest
from mfd.packet.signing import seal
from mfd.sim.keys import SimKey, sim_verify

A, B, C, D = (SimKey(name) for name in (b"a", b"b", b"c", b"d"))
WALKER = blake3(b"walker").digest()
CREATOR = blake3(b"creator").digest()
FIRST = Certificate(
    walker=WALKER,
    epoch=(0, CREATOR),
    hop=1,
    revision=0,
    source=A.public_key,
    target=B.public_key,
    manifest=bytes(32),
    previous=b"",
    stored=bytes(32),
    shadows=(A.public_key,),
    released=(),
    nonce=bytes(16),
    lease_us=60_000_000,
)
FIRST_RECORD = seal_certificate(FIRST, A)
NEXT = replace(
    FIRST,
    hop=2,
    source=B.public_key,
    target=C.public_key,
    previous=object_digest(FIRST_RECORD),
    shadows=(B.public_key, A.public_key),
)


def reissue(signer: SimKey, **changes) -> Certificate:
    base = replace(
        NEXT,
        epoch=(1, signer.public_key),
        hop=0,
        source=signer.public_key,
        target=signer.public_key,
        stored=b"",
        nonce=b"",
        shadows=(),
    )
    return replace(base, **changes)


def test_genesis_round_trip_and_walker_id() -> None:
    """Rules: C-04"""
    genesis = Genesis(A.public_key, bytes(16), bytes(32), bytes(32), 2, "auto")
    record = seal_genesis(genesis, A)
    assert record[96:] == msgpack.packb([bytes(16), bytes(32), bytes(32), 2, "auto"])
    assert open_genesis(record, sim_verify) == genesis
    assert walker_id(record) == blake3(b"mfd.walker.v1" + record).digest()


@pytest.mark.parametrize(
    "body",
    [
        [bytes(15), bytes(32), bytes(32), 2, "auto"],
        [bytes(16), bytes(31), bytes(32), 2, "auto"],
        [bytes(16), bytes(32), bytes(32), 0, "auto"],
        [bytes(16), bytes(32), bytes(32), 4, "auto"],
        [bytes(16), bytes(32), bytes(32), True, "auto"],
        [bytes(16), bytes(32), bytes(32), 2, "perhaps"],
        [bytes(16), bytes(32), bytes(32), 2],
        {},
    ],
)
def test_a_genesis_of_a_wrong_form(body: object) -> None:
    """Rules: C-04"""
    with pytest.raises(PacketError) as caught:
        open_genesis(seal("mfd.genesis.v1", msgpack.packb(body), A), sim_verify)
    assert caught.value.fault is Fault.FIELD


def test_certificate_round_trip() -> None:
    """Rules: C-05"""
    assert open_certificate(FIRST_RECORD, sim_verify) == FIRST
    body = msgpack.unpackb(FIRST_RECORD[96:])
    assert body[:3] == [WALKER, [0, CREATOR], 1]
    assert len(body) == 12
    assert FIRST.position == (0, CREATOR, 1)


def test_a_changed_byte_of_a_certificate_shows() -> None:
    """Rules: C-05"""
    for at in range(0, len(FIRST_RECORD), 7):
        wrong = bytearray(FIRST_RECORD)
        wrong[at] ^= 1
        with pytest.raises(PacketError):
            open_certificate(bytes(wrong), sim_verify)


def test_rightly_signed_certificates_of_wrong_forms() -> None:
    """Rules: C-05"""
    read = []
    for index in range(12):
        for value in (None, -1, 1 << 63, True, 1.5, b"", bytes(31), "x", [1], {}):
            body = msgpack.unpackb(FIRST_RECORD[96:])
            body[index] = value
            try:
                open_certificate(seal("mfd.certificate.v1", msgpack.packb(body), A), sim_verify)
            except PacketError:
                continue
            read.append((index, value))
    assert read == [(6, b""), (7, b""), (10, b"")]  # previous, stored and nonce may be empty


def test_a_hand_over_follows_by_the_owner_alone() -> None:
    """Rules: C-06"""
    assert follows(NEXT, FIRST, FIRST_RECORD)
    assert not follows(replace(NEXT, source=A.public_key), FIRST, FIRST_RECORD)
    assert not follows(replace(NEXT, hop=3), FIRST, FIRST_RECORD)
    assert not follows(replace(NEXT, walker=bytes(32)), FIRST, FIRST_RECORD)
    assert not follows(replace(NEXT, previous=bytes(32)), FIRST, FIRST_RECORD)


@pytest.mark.parametrize(("signer", "right"), [(A, True), (B, True), (C, False), (D, False)])
def test_a_re_issue_follows_by_owner_or_shadow_alone(signer: SimKey, right: bool) -> None:
    """Rules: C-06, C-22"""
    assert follows(reissue(signer), FIRST, FIRST_RECORD) is right
    later = reissue(signer, epoch=(7, signer.public_key))  # others issued epochs in between
    assert follows(later, FIRST, FIRST_RECORD) is right
    wild = reissue(signer, epoch=(1 << 20, signer.public_key))
    assert not follows(wild, FIRST, FIRST_RECORD), "it would use up the counters"


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": (0, A.public_key)},
        {"epoch": (1, B.public_key)},
        {"hop": 1},
        {"target": C.public_key},
    ],
)
def test_a_re_issue_counts_up_and_names_its_issuer(changes: dict) -> None:
    """Rules: C-06, C-22"""
    assert not follows(reissue(A, **changes), FIRST, FIRST_RECORD)
