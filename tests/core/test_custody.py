"""Authority: who may offer a walker, what a GRANT must match, what a row brings back."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import numpy as np
import pytest

from mfd.core.birth import bear
from mfd.core.certificates import Certificate, seal_certificate
from mfd.core.custody import (
    Held,
    Role,
    Version,
    Walker,
    open_identity,
    why_not_granted,
    why_refuse,
)
from mfd.packet.errors import Fault, PacketError
from mfd.packet.objects import object_digest, pack_layer
from mfd.packet.plan import Plan
from mfd.sim.keys import SimKey, sim_verify

HOME, B, C, LIAR = (SimKey(name) for name in (b"home", b"b", b"c", b"liar"))
CREATOR = SimKey(b"creator")
PLAN = Plan(recipe={}, names=("d",), home=HOME.public_key)
LAYERS = [("l", pack_layer({"w": np.zeros(4, np.float32)}))]
BIRTH = bear(PLAN, LAYERS, CREATOR, nonce=bytes(16))
IDENTITY = open_identity(BIRTH.event.genesis, BIRTH.event.plan, sim_verify)
VERSION = Version.open(BIRTH.event.manifest, BIRTH.event.signature, sim_verify)
EPOCH = (0, CREATOR.public_key)


def certificate(source: SimKey, target: SimKey, hop: int, previous: bytes = b"", **more):
    fields = {
        "walker": IDENTITY.walker,
        "epoch": EPOCH,
        "hop": hop,
        "revision": 0,
        "source": source.public_key,
        "target": target.public_key,
        "manifest": VERSION.digest,
        "previous": object_digest(previous) if previous else b"",
        "stored": bytes(32),
        "shadows": (source.public_key,),
        "released": (),
        "nonce": bytes(16),
        "lease_us": 1,
    }
    return Certificate(**{**fields, **more})


FIRST = seal_certificate(certificate(HOME, B, 1), HOME)
SECOND = seal_certificate(certificate(B, C, 2, FIRST), B)


def refusal(chain: tuple[bytes, ...], sender: SimKey, hop: int, epoch=EPOCH, version=VERSION):
    return why_refuse(
        IDENTITY, version, (*epoch, hop), chain, sender=sender.public_key, verify=sim_verify
    )


def test_the_rightful_owner() -> None:
    """Rules: C-08, C-09"""
    assert refusal((), HOME, 1) is None
    assert refusal((FIRST,), B, 2) is None
    assert refusal((SECOND, FIRST), C, 3) is None


@pytest.mark.parametrize(
    ("chain", "sender", "hop", "why"),
    [
        ((), LIAR, 1, "only the home"),
        ((), HOME, 2, "only the home"),
        ((FIRST,), HOME, 2, "names another owner"),
        ((FIRST,), LIAR, 2, "names another owner"),
        ((FIRST,), B, 3, "does not follow"),
        ((SECOND,), C, 3, "is cut"),
        ((seal_certificate(certificate(LIAR, LIAR, 1), LIAR),), LIAR, 2, "is cut"),
        (
            (seal_certificate(certificate(LIAR, LIAR, 2, FIRST), LIAR), FIRST),
            LIAR,
            3,
            "not issued by the owner before",
        ),
    ],
)
def test_no_authority(chain: tuple[bytes, ...], sender: SimKey, hop: int, why: str) -> None:
    """Rules: C-08, C-09"""
    assert why in (refusal(chain, sender, hop) or "")


def test_a_manifest_of_another_walker() -> None:
    """Rules: C-08"""
    other = bear(PLAN, LAYERS, CREATOR, nonce=bytes(15) + b"x")
    version = Version.open(other.event.manifest, other.event.signature, sim_verify)
    assert "another walker" in (refusal((), HOME, 1, version=version) or "")


def test_a_plan_that_the_genesis_does_not_name() -> None:
    """Rules: C-04"""
    other = bear(replace(PLAN, laps=9), LAYERS, CREATOR, nonce=bytes(16))
    with pytest.raises(PacketError) as caught:
        open_identity(BIRTH.event.genesis, other.event.plan, sim_verify)
    assert caught.value.fault is Fault.DIGEST


def held() -> Held:
    return Held(VERSION, (*EPOCH, 1), (), HOME.public_key, b"r" * 32, b"n" * 16, b"stored")


def grant(**changes) -> Certificate:
    right = {"stored": object_digest(b"stored"), "nonce": b"n" * 16}
    return replace(certificate(HOME, B, 1), **{**right, **changes})


def test_a_grant_that_fits() -> None:
    """Rules: C-13"""
    right = why_not_granted(held(), grant(), sender=HOME.public_key, me=B.public_key)
    assert right is None


@pytest.mark.parametrize(
    ("changes", "sender"),
    [
        ({"target": C.public_key}, HOME),
        ({"source": LIAR.public_key}, LIAR),
        ({}, LIAR),
        ({"hop": 2}, HOME),
        ({"epoch": (1, CREATOR.public_key)}, HOME),
        ({"manifest": bytes(32)}, HOME),
        ({"stored": bytes(32)}, HOME),
        ({"nonce": bytes(16)}, HOME),
    ],
)
def test_a_grant_for_something_else(changes: dict, sender: SimKey) -> None:
    """Rules: C-13"""
    reason = why_not_granted(held(), grant(**changes), sender=sender.public_key, me=B.public_key)
    assert reason is not None


def test_a_row_comes_back_as_it_was() -> None:
    """Rules: C-17"""
    walker = Walker(
        IDENTITY, Role.SHADOW, VERSION, VERSION, held(), (SECOND, FIRST), high_water=(*EPOCH, 2)
    )
    key, value = walker.row()
    assert key == "walker/" + IDENTITY.walker.hex()
    back = Walker.from_row(value, sim_verify)
    assert back == walker


def test_a_row_whose_signatures_have_rotted() -> None:
    """Rules: C-17"""
    _, value = Walker(IDENTITY, Role.OWN, VERSION).row()
    row = msgpack.unpackb(value)
    row[3][0] = row[3][0][:-1] + bytes((row[3][0][-1] ^ 1,))
    with pytest.raises(PacketError):
        Walker.from_row(msgpack.packb(row), sim_verify)
