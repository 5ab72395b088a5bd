"""A packet in pieces: any order, twice, from several places, resumed."""

from __future__ import annotations

import random
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.packet import (
    Assembly,
    Encoding,
    Fault,
    Packet,
    PacketError,
    Piece,
    PieceKind,
    Want,
    decode,
    decode_piece,
    encode_piece,
    head_of,
    pieces_of,
    wrap_object,
)
from tests.packet.bodies import AFTER, BEFORE, MIB, NEW, same

PIECES = [b"".join(encode_piece(piece)) for piece in pieces_of(AFTER)]
LISTS, CHUNKS = PIECES[:3], PIECES[3:]


def begun(**options: object) -> Assembly:
    assembly = Assembly(decode(head_of(AFTER)), **options)  # type: ignore[arg-type]
    for piece in LISTS:
        assert assembly.add(piece)
    return assembly


@given(st.integers(0, 999))
def test_any_order_and_twice(seed: int) -> None:
    """Rules: P-92"""
    dice = random.Random(seed)
    assembly = begun()
    order = [*CHUNKS, *dice.sample(CHUNKS, 2)]
    dice.shuffle(order)
    new = [assembly.add(piece) for piece in order]
    assert new.count(True) == len(CHUNKS) == 6
    assert not list(assembly.missing())
    packet = assembly.packet()
    packet.check()
    assert same(packet, NEW)


@pytest.mark.parametrize("encoding", Encoding)
def test_every_encoding(encoding: Encoding) -> None:
    """Rules: P-91"""
    assembly = begun(held=BEFORE)
    for piece in pieces_of(AFTER, encoding, base=BEFORE):
        assembly.add(decode_piece(b"".join(encode_piece(piece))))
    assert same(assembly.packet(), NEW)


def test_what_is_missing_is_told() -> None:
    assembly = Assembly(decode(head_of(AFTER)))
    digests = [ref.digest for ref in AFTER.manifest.layers]
    assert list(assembly.missing()) == [Want(digest) for digest in digests]
    with pytest.raises(PacketError, match="its list is not here yet"):
        assembly.add(CHUNKS[0])
    assembly.add(LISTS[1])
    assembly.add(CHUNKS[3])
    wanted = [Want(digests[0]), Want(digests[2]), Want(digests[1], 0)]
    assert list(assembly.missing()) == wanted
    assert not assembly.packet().objects


def test_it_goes_on_where_it_stopped() -> None:
    """The memory that was lent keeps what came; one chunk was hurt meanwhile."""
    rooms: dict[bytes, memoryview] = {}

    def lend(digest: bytes, size: int) -> memoryview:
        return rooms.setdefault(digest, np.zeros(size, np.uint8).data)

    first = begun(room=lend)
    for piece in CHUNKS[:4]:
        first.add(piece)
    rooms[AFTER.manifest.layers[0].digest][5] ^= 1
    second = begun(room=lend)
    assert second.resume() == 3
    assert second.resume() == 0
    assert len(list(second.missing())) == 3
    for piece in CHUNKS:
        second.add(piece)
    assert same(second.packet(), NEW)
    with pytest.raises(ValueError, match="writable bytes were asked for"):
        begun(room=lambda _, size: memoryview(bytes(size))).add(CHUNKS[0])


def changed(piece: bytes, at: int) -> bytes:
    return piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1 :]


@pytest.mark.parametrize(
    ("piece", "fault"),
    [
        (changed(CHUNKS[0], -900), Fault.DIGEST),
        (changed(LISTS[0], 100), Fault.DIGEST),
        (changed(CHUNKS[0], 35), Fault.FIELD),  # another object
        (changed(CHUNKS[0], 16), Fault.FIELD),  # another size
        (changed(CHUNKS[0], 6)[:6] + b"\x02" + CHUNKS[0][7:], Fault.BASE),
        (changed(CHUNKS[0], 6), Fault.ENCODING),  # planes said to be raw
    ],
)
def test_what_is_refused_changes_nothing(piece: bytes, fault: Fault) -> None:
    """Rules: P-92"""
    assembly = Assembly(decode(head_of(AFTER)))
    if fault is not Fault.DIGEST or piece[5] == PieceKind.CHUNK:
        assembly = begun()
    before = list(assembly.missing())
    with pytest.raises(PacketError) as caught:
        assembly.add(piece)
    assert caught.value.fault is fault
    assert list(assembly.missing()) == before
    for good in PIECES:
        assembly.add(good)
    assert same(assembly.packet(), NEW)


def test_a_false_part_of_a_list_does_no_lasting_harm() -> None:
    """Rules: P-92"""
    assembly = Assembly(decode(head_of(AFTER)))
    whole = decode_piece(LISTS[0])
    halves = [bytes(whole.body[:32]), bytes(whole.body[32:])]
    parts = [
        Piece(PieceKind.LIST, whole.object, whole.raw_bytes, i, half)
        for i, half in enumerate(halves)
    ]
    false = Piece(PieceKind.LIST, whole.object, whole.raw_bytes, 0, b"\x66" * 32)
    assert assembly.add(false)
    with pytest.raises(PacketError) as caught:
        assembly.add(parts[1])
    assert caught.value.fault is Fault.DIGEST
    assert assembly.add(parts[1])
    assert assembly.add(parts[0])
    assert not assembly.add(parts[0])
    assert all(want.object != whole.object or want.index is not None for want in assembly.missing())


def test_no_more_memory_than_allowed() -> None:
    """Rules: P-92"""
    assembly = begun(decoded_bytes_max=2 * MIB)
    assembly.add(CHUNKS[0])
    with pytest.raises(PacketError) as caught:
        assembly.add(CHUNKS[2])
    assert caught.value.fault is Fault.LIMIT


def test_the_plan_comes_if_somebody_sends_it() -> None:
    """Rules: P-92"""
    plan = wrap_object(b"a plan record, opened elsewhere")
    packet = Packet.from_tensors(NEW, plan=plan.digest)
    full = Packet.of(packet.manifest, [*packet.objects.values(), plan])
    assembly = Assembly(decode(head_of(full)))
    assert all(want.object != plan.digest for want in assembly.missing())
    for piece in pieces_of(full):
        assembly.add(piece)
    assert assembly.packet().object(plan.digest) == plan.tobytes()
    large = Piece(PieceKind.LIST, plan.digest, 1 << 30, 0, bytes(32))
    with pytest.raises(PacketError) as caught:
        Assembly(decode(head_of(full))).add(large)
    assert caught.value.fault is Fault.FIELD


@given(st.data())
def test_any_piece_is_read_or_refused(data: st.DataObject) -> None:
    """Rules: P-70, P-90"""
    piece = bytearray(data.draw(st.sampled_from([LISTS[0], LISTS[1]])))
    for _ in range(data.draw(st.integers(1, 3))):
        piece[data.draw(st.integers(0, len(piece) - 1))] = data.draw(st.integers(0, 255))
    piece = piece[: data.draw(st.integers(0, len(piece)))]
    with suppress(PacketError):
        begun().add(bytes(piece))
