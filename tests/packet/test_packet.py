from __future__ import annotations

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Encoding,
    Envelope,
    Fault,
    LayerObject,
    Packet,
    PacketError,
    Tensor,
    decode,
    encode,
    object_digest,
    pack_layer,
    wrap_object,
)
from mfd.packet.carried import CarriedObject
from tests.packet import reference
from tests.packet.keys import HashSigner, verify_hash
from tests.packet.values import LAYERS, address

ALICE = HashSigner("alice")
DICE = np.random.default_rng(0)
SMALL = {
    "in": {"w": np.arange(40, dtype="<f4"), "b": np.zeros(3, "<f2")},
    "out": {"w": np.full((9, 9), 7, "<i4")},
}
LARGE = {
    "a": {
        "w": DICE.normal(size=400_000).astype("<f4"),
        "noise": DICE.integers(0, 256, 2 << 20, "u1"),
    },
    "b": {"w": np.zeros(10, "<f8")},
}


def wire(packet: Packet, encoding: Encoding = Encoding.PLANES) -> bytes:
    return b"".join(encode(packet, encoding))


def same(a: dict[str, dict[str, Tensor]], b: dict[str, dict[str, Tensor]]) -> bool:
    return a == b


@given(st.dictionaries(st.text(min_size=1, max_size=9), LAYERS, min_size=1, max_size=3))
def test_round_trip(layers: dict[str, dict[str, Tensor]]) -> None:
    """Rules: P-50, P-54, P-60"""
    packet = Packet.from_tensors(layers, signer=ALICE, claims={"loss": 0.5})
    for encoding in Encoding:
        data = wire(packet, encoding)
        read = decode(data, verify_hash)
        read.check()
        assert read.manifest == packet.manifest
        assert same(read.tensors(), packet.tensors())
        _, manifest, signature, objects = reference.packet(data)
        assert (manifest[2], signature) == (packet.manifest.model, packet.signature)
        for digest, raw in objects.items():
            assert reference.digest(raw) == digest == object_digest(raw)
        assert objects.keys() == read.objects.keys()


def test_flat_tensors_are_one_layer() -> None:
    packet = decode(wire(Packet.from_tensors({"w": np.ones(3), "b": np.zeros(2)})))
    assert [ref.name for ref in packet.manifest.layers] == ["model"]
    assert packet.layer(0).keys() == {"w", "b"}
    assert packet.signature == b""


@pytest.mark.parametrize("encoding", Encoding)
def test_many_chunks(encoding: Encoding) -> None:
    """Rules: P-60, P-61, P-62"""
    packet = Packet.from_tensors(LARGE)
    data = wire(packet, encoding)
    read = decode(data)
    read.check()
    assert same(read.tensors(), packet.tensors())
    assert [entry.chunk_count for entry in read.envelope.index] == [4, 1]
    assert reference.packet(data)[3] == {d: bytes(read.object(d)) for d in read.objects}
    bodies = [body for item in read.objects.values() for _, body in item.bodies]  # type: ignore[union-attr]
    assert all((address(body) - address(memoryview(data))) % 64 == 0 for body in bodies)
    again = decode(wire(read, Encoding.RAW))
    assert same(again.tensors(), packet.tensors())


def test_raw_tensors_are_not_copied_out() -> None:
    array = LARGE["a"]["w"]
    parts = encode(Packet.from_tensors(LARGE), Encoding.RAW)
    addresses = [address(memoryview(part)) for part in parts]
    assert array.__array_interface__["data"][0] in addresses


def test_raw_tensors_are_not_copied_in(tmp_path: Path) -> None:
    """Rules: P-61"""
    path = tmp_path / "model.mfd"
    path.write_bytes(wire(Packet.from_tensors(LARGE), Encoding.RAW))
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        start = address(memoryview(memory))
        packet = decode(memory)
        tensor = packet.layer(0)["w"]
        assert start < address(tensor.data) < start + len(memory)
        assert address(tensor.data) % 64 == 0
        np.testing.assert_array_equal(tensor.array(), LARGE["a"]["w"])
        del tensor, packet


def test_only_what_is_lacking() -> None:
    """Rules: P-54"""
    whole = Packet.from_tensors(SMALL, signer=ALICE)
    lacking = whole.manifest.layers[1].digest
    part = Packet.of(whole.manifest, [whole.objects[lacking]], signer=ALICE)
    read = decode(wire(part), verify_hash)
    assert read.tensors().keys() == {"out"}
    assert read.manifest_bytes == whole.manifest_bytes
    with pytest.raises(PacketError) as caught:
        read.layer(0)
    assert caught.value.fault is Fault.OBJECT
    with pytest.raises(ValueError, match="names no object"):
        Packet.of(whole.manifest, [pack_layer({"x": np.zeros(1)})])


def test_equal_layers_travel_once() -> None:
    tied = Packet.from_tensors({"embed": SMALL["in"], "unembed": SMALL["in"]})
    read = decode(wire(tied))
    assert len(read.objects) == 1
    assert read.layer(0) == read.layer(1)


def test_the_plan_record_may_travel_too() -> None:
    """Rules: P-54"""
    record = wrap_object(b"a plan record")
    layer = pack_layer(SMALL["in"])
    manifest = replace(Packet.from_tensors({"in": SMALL["in"]}).manifest, plan=record.digest)
    read = decode(wire(Packet.of(manifest, [layer, record])))
    read.check()
    assert bytes(read.object(manifest.plan)) == b"a plan record"


def test_the_envelope_may_change_on_the_way() -> None:
    """Rules: P-53"""
    read = decode(wire(Packet.from_tensors(SMALL, signer=ALICE)), verify_hash)
    there = replace(read, envelope=Envelope(destination="digits/train", hop_limit=3))
    again = decode(wire(there), verify_hash)
    assert (again.envelope.destination, again.envelope.hop_limit) == ("digits/train", 3)
    assert again.manifest_bytes == read.manifest_bytes


def test_unsigned_is_for_local_use() -> None:
    """Rules: P-52"""
    data = wire(Packet.from_tensors(SMALL))
    decode(data).check()
    with pytest.raises(PacketError) as caught:
        decode(data, verify_hash)
    assert caught.value.fault is Fault.SIGNATURE


def test_decoded_bytes_are_limited_before_any_is_decoded() -> None:
    """Rules: P-64"""
    data = wire(Packet.from_tensors({"zeros": np.zeros(4 << 20, np.uint8)}))
    assert len(data) < 2000
    decode(data, decoded_bytes_max=5 << 20)
    with pytest.raises(PacketError) as caught:
        decode(data, decoded_bytes_max=4 << 20)
    assert caught.value.fault is Fault.LIMIT


@pytest.mark.parametrize("encoding", Encoding)
def test_every_prefix_is_refused(encoding: Encoding) -> None:
    """Rules: P-51, P-70"""
    data = wire(Packet.from_tensors(SMALL, signer=ALICE), encoding)
    for size in range(len(data)):
        with pytest.raises(PacketError):
            decode(data[:size], verify_hash)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_flipped_bit_is_refused_or_in_the_envelope(encoding: Encoding) -> None:
    """Rules: P-14, P-51, P-60, P-62, P-70"""
    packet = Packet.from_tensors(SMALL, signer=ALICE)
    data = wire(packet, encoding)
    envelope_end = 16 + int.from_bytes(data[6:8], "little")
    survivors = 0
    for at in range(len(data)):
        for bit in (0, 3, 7):
            flipped = bytearray(data)
            flipped[at] ^= 1 << bit
            try:
                read = decode(flipped, verify_hash)
                read.check()
                tensors = read.tensors()
            except PacketError:
                continue
            survivors += 1
            assert 16 <= at < envelope_end or is_slack_of_zstd(read)
            assert same(tensors, packet.tensors())
            assert read.manifest == packet.manifest
    assert survivors > 16  # hop limit, class, priority, trace


def is_slack_of_zstd(packet: Packet) -> bool:
    """A frame may be spelt in more ways than one; the raw content is what is checked."""
    items = [item for item in packet.objects.values() if isinstance(item, CarriedObject)]
    return any(encoding == Encoding.PLANES for item in items for encoding, _ in item.bodies)


@given(st.data())
def test_any_changes_are_refused_or_harmless(data: st.DataObject) -> None:
    """Rules: P-70"""
    packet = Packet.from_tensors(SMALL, signer=ALICE)
    changed = bytearray(wire(packet))
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, 100))
    try:
        read = decode(changed[: len(changed) - cut] if cut < 50 else changed, verify_hash)
        read.check()
    except PacketError:
        return
    assert read.manifest == packet.manifest


@pytest.mark.parametrize(
    ("offset", "fault"),
    [(0, Fault.DIGEST), (31, Fault.DIGEST), (32, Fault.ENCODING), (33, Fault.PADDING)],
)
def test_the_chunk_table_is_proven_before_content_is_asked_for(offset: int, fault: Fault) -> None:
    """Rules: P-61, P-62"""
    packet = Packet.from_tensors(SMALL)
    data = bytearray(wire(packet, Encoding.RAW))
    (first, *_) = (item for item in packet.objects.values() if isinstance(item, LayerObject))
    data[data.index(first.chunks[0]) + offset] ^= 1
    with pytest.raises(PacketError) as caught:
        decode(data)
    assert caught.value.fault is fault


def test_damage_shows_where_it_is() -> None:
    """Rules: P-62"""
    data = bytearray(wire(Packet.from_tensors(LARGE), Encoding.RAW))
    data[-2_000_000] ^= 1
    packet = decode(data)
    packet.layer(1)
    with pytest.raises(PacketError, match=r"chunk \d of object") as caught:
        packet.check()
    assert caught.value.fault is Fault.DIGEST


def test_a_layer_that_changed_after_packing_is_caught() -> None:
    array = np.zeros(9)
    packet = Packet.from_tensors({"w": array})
    packet.check()
    array[0] = 1
    with pytest.raises(PacketError) as caught:
        packet.check()
    assert caught.value.fault is Fault.DIGEST
    assert all(isinstance(item, LayerObject) for item in packet.objects.values())
