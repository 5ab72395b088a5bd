from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Fault,
    LayerRef,
    Manifest,
    PacketError,
    Progress,
    decode_manifest,
    encode_manifest,
    object_digest,
    sign_manifest,
    verify_manifest,
    version_of,
)
from tests.packet.keys import HashSigner, verify_hash
from tests.packet.values import manifests

ALICE = HashSigner("alice")
LAYERS = tuple(LayerRef(i, f"block.{i}", bytes([i]) * 32, 1024) for i in range(4))
PLAIN = Manifest(
    walker=b"w" * 32,
    model=b"m" * 32,
    seq=1,
    layers=LAYERS,
    plan=b"p" * 32,
    trainer=ALICE.public_key,
)


@given(manifests())
def test_round_trip(manifest: Manifest) -> None:
    """Rules: P-12, P-20"""
    body = encode_manifest(manifest)
    assert decode_manifest(body) == manifest
    assert encode_manifest(decode_manifest(body)) == body


def test_claims_in_any_order_are_one_version() -> None:
    one = encode_manifest(replace(PLAIN, claims={"loss": 1.0, "samples": 2}))
    other = encode_manifest(replace(PLAIN, claims={"samples": 2, "loss": 1.0}))
    assert version_of(one) == version_of(other) == object_digest(other)


def test_a_measure_that_is_not_finite_travels_as_text() -> None:
    """Rules: P-25"""
    claims = {"a": float("nan"), "b": float("inf"), "c": float("-inf")}
    decoded = decode_manifest(encode_manifest(replace(PLAIN, claims=claims)))
    assert decoded.claims == {"a": "nan", "b": "inf", "c": "-inf"}


def test_the_largest_manifest_fits() -> None:
    """Rules: P-20"""
    layers = tuple(LayerRef(i, f"encoder.block.{i:030}", bytes(32), 1 << 40) for i in range(256))
    parents = tuple(i.to_bytes(32, "big") for i in range(64))
    visited = tuple(i.to_bytes(8, "big") for i in range(256))
    manifest = replace(PLAIN, layers=layers, parents=parents, progress=Progress(visited=visited))
    assert decode_manifest(encode_manifest(manifest)) == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"walker": b"short"},
        {"seq": -1},
        {"seq": 1 << 63},
        {"seq": 1 << 64},
        {"layers": ()},
        {"layers": LAYERS[1:]},
        {"layers": (replace(LAYERS[0], raw_bytes=0),)},
        {"layers": (replace(LAYERS[0], name="x" * 513),)},
        {"trained": ((0, 2), (1, 3))},
        {"trained": ((2, 3), (0, 1))},
        {"trained": ((0, 5),)},
        {"trained": tuple((i, i) for i in range(1))},
        {"progress": Progress(visited=(b"12345678",) * 2)},
        {"progress": Progress(visited=(b"1234567",))},
        {"progress": Progress(sampler=bytes(9000))},
        {"claims": {"a": True}},
        {"claims": {"": 1}},
        {"claims": {str(i): i for i in range(33)}},
        {"software": "x" * 129},
        {"extra": {100: 1}},
        {"extra": {1: {}}},
    ],
)
def test_the_writer_refuses_what_no_reader_takes(changes: dict[str, object]) -> None:
    """Rules: P-21, P-22, P-23, P-24, P-25"""
    with pytest.raises(ValueError, match=r"cannot travel|integer|critical"):
        encode_manifest(replace(PLAIN, **changes))  # type: ignore[arg-type]


def test_touching_ranges_are_fine() -> None:
    """Rules: P-22"""
    manifest = replace(PLAIN, trained=((1, 3), (3, 4)))
    assert decode_manifest(encode_manifest(manifest)).trained == ((1, 3), (3, 4))


def test_signature() -> None:
    """Rules: P-26"""
    body, signature = sign_manifest(PLAIN, ALICE)
    assert verify_manifest(body, signature, verify_hash) == PLAIN
    with pytest.raises(PacketError) as caught:
        verify_manifest(body, signature[:-1], verify_hash)
    assert caught.value.fault is Fault.SIGNATURE
    other, _ = sign_manifest(replace(PLAIN, seq=2), ALICE)
    with pytest.raises(PacketError) as caught:
        verify_manifest(other, signature, verify_hash)
    assert caught.value.fault is Fault.SIGNATURE


def test_nobody_signs_for_another() -> None:
    with pytest.raises(ValueError, match="another key"):
        sign_manifest(PLAIN, HashSigner("mallory"))


@given(st.binary(max_size=200))
def test_any_bytes_give_an_error_of_the_list(body: bytes) -> None:
    """Rules: P-70"""
    with pytest.raises(PacketError):
        decode_manifest(body)


@given(manifests(), st.data())
def test_any_change_is_refused_or_read(manifest: Manifest, data: st.DataObject) -> None:
    """Rules: P-70"""
    body = bytearray(encode_manifest(manifest))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode_manifest(body)
    except PacketError:
        return
    assert encode_manifest(read) == body


@pytest.mark.parametrize("key", [1, 3])
def test_nothing_in_a_field_is_not_no_field(key: int) -> None:
    """Rules: P-13"""
    fields = msgpack.unpackb(encode_manifest(PLAIN), strict_map_key=False)
    body = msgpack.packb(dict(sorted({**fields, key: None}.items())))
    with pytest.raises(PacketError) as caught:
        decode_manifest(body)
    assert caught.value.fault is Fault.FIELD
