"""Packets whose objects build upon others that the reader holds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from mfd.packet import (
    Encoding,
    Fault,
    Packet,
    PacketError,
    choose_all,
    commit,
    decode,
    encode,
)
from tests.packet.bodies import AFTER, BEFORE, NEW, OLD, same


@pytest.mark.parametrize("encoding", Encoding)
def test_there_and_back(encoding: Encoding) -> None:
    """Rules: P-49, P-61, P-63"""
    data = b"".join(encode(AFTER, encoding, base=BEFORE))
    packet = decode(data, held=BEFORE)
    packet.check()
    assert same(packet, NEW)
    bases = {entry.base for entry in packet.envelope.index}
    delta = encoding not in (Encoding.RAW, Encoding.PLANES)
    assert bases == ({ref.digest for ref in BEFORE.manifest.layers} if delta else {None})


@pytest.mark.parametrize(
    ("way", "encoding", "share"),
    [("delta-int4", Encoding.INT4, 0.13), ("top-k", Encoding.SPARSE, 0.03)],
)
def test_a_committed_packet_is_small(way: str, encoding: Encoding, share: float) -> None:
    """Rules: P-61, P-80, P-84"""
    layers = {name: commit(NEW[name], way, base=OLD[name]).tensors for name in NEW}
    packet = Packet.from_tensors(layers)
    data = b"".join(encode(packet, encoding, base=BEFORE))
    assert len(data) < share * sum(item.raw_bytes for item in packet.objects.values())
    again = decode(data, held=BEFORE)
    assert {entry.encoding for entry in again.envelope.index} == {encoding}
    assert same(again, {n: {k: t.array() for k, t in ts.items()} for n, ts in layers.items()})


def test_what_is_held_may_be_a_map_of_objects() -> None:
    held = {digest: item.tobytes() for digest, item in BEFORE.objects.items()}  # type: ignore[union-attr]
    assert same(decode(b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE)), held=held), NEW)


def test_without_the_base_it_is_refused() -> None:
    """Rules: P-48, P-63"""
    data = b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE))
    for held in (None, AFTER, {}):
        with pytest.raises(PacketError) as caught:
            decode(data, held=held)
        assert caught.value.fault is Fault.BASE


def test_a_wrong_base_is_found_out() -> None:
    """Rules: P-62"""
    held = {digest: bytes(BEFORE.objects[digest].raw_bytes) for digest in BEFORE.objects}
    packet = decode(b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE)), held=held)
    with pytest.raises(PacketError) as caught:
        packet.check()
    assert caught.value.fault is Fault.DIGEST


def test_layers_that_did_not_change_need_no_base() -> None:
    layers = {**NEW, "block1": OLD["block1"]}
    packet = Packet.from_tensors(layers)
    again = decode(b"".join(encode(packet, Encoding.DELTA, base=BEFORE)), held=BEFORE)
    assert [entry.base is None for entry in again.envelope.index] == [False, True, False]
    assert same(again, layers)


def test_a_choice_for_each_object() -> None:
    chosen = choose_all(AFTER, link_bps=50e6, base=BEFORE)
    assert {choice.encoding for choice in chosen.values()} == {Encoding.DELTA}
    packet = decode(b"".join(encode(AFTER, chosen, base=BEFORE)), held=BEFORE)
    assert {entry.encoding for entry in packet.envelope.index} == {Encoding.DELTA}
    fast = choose_all(AFTER, link_bps=100e9, base=BEFORE)
    packet = decode(b"".join(encode(AFTER, fast, base=BEFORE)))
    assert {entry.encoding for entry in packet.envelope.index} == {Encoding.RAW}
    first, *_ = AFTER.objects
    mixed = decode(b"".join(encode(AFTER, {first: Encoding.RAW})))
    assert [entry.encoding for entry in mixed.envelope.index] == [0, 1, 1]


def test_compact_forms_are_chosen_where_they_fit() -> None:
    layers = {name: commit(tensors, "int4").tensors for name, tensors in NEW.items()}
    packet = Packet.from_tensors(layers)
    choices = choose_all(packet, link_bps=50e6).values()
    assert {choice.encoding for choice in choices} == {Encoding.INT4}
    assert next(iter(choices)).why.startswith("int4, 1")
    data = b"".join(encode(packet, Encoding.INT4))
    told = sum(choice.encoded_bytes[Encoding.INT4] for choice in choices)
    assert told == pytest.approx(len(data), rel=0.08)
    signs = {name: commit(NEW[name], "delta-sign", base=OLD[name]).tensors for name in NEW}
    chosen = choose_all(Packet.from_tensors(signs), link_bps=50e6, base=BEFORE).values()
    assert {choice.encoding for choice in chosen} == {Encoding.SIGN}


def test_with_threads_the_bytes_are_the_same() -> None:
    data = b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE))
    with ThreadPoolExecutor(2) as pool:
        assert b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE, mapped=pool.map)) == data
        packet = decode(data, held=BEFORE)
        found = packet.tensors(pool.map)
    assert found["block0"]["weight"].array().tobytes() == NEW["block0"]["weight"].tobytes()


def test_a_base_that_is_encoded_itself() -> None:
    before = decode(b"".join(encode(BEFORE, Encoding.PLANES)))
    data = b"".join(encode(AFTER, Encoding.DELTA, base=before))
    assert data == b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE))
    assert same(decode(data, held=before), NEW)
