"""What of a damaged file is still good."""

from __future__ import annotations

import pytest

from mfd.packet import Encoding, Fault, PacketError, decode, encode, pieces_of, survey
from tests.packet.bodies import AFTER, BEFORE, NEW, same

WHOLE = b"".join(encode(AFTER, Encoding.PLANES))


def test_a_sound_packet() -> None:
    found = survey(WHOLE)
    assert found.sound
    assert [item.layers for item in found.objects] == [("block0",), ("block1",), ("block2",)]
    assert [item.good for item in found.objects] == [2, 2, 2]
    assert same(found.assembly().packet(), NEW)


def test_the_first_bad_chunk_is_named_and_the_others_stay_usable() -> None:
    """Rules: P-62"""
    offset = survey(WHOLE).objects[1].offsets[1]
    body = bytearray(WHOLE)
    body[offset + 1_000] ^= 1
    found = survey(bytes(body))
    assert not found.sound
    (bad,) = found.objects[1].bad
    assert (bad.index, bad.offset) == (1, offset)
    assert bad.fault in (Fault.DIGEST, Fault.ENCODING)
    assert [item.good for item in found.objects] == [2, 1, 2]
    assembly = found.assembly()
    (want,) = assembly.missing()
    assert (want.object, want.index) == (AFTER.manifest.layers[1].digest, 1)
    assert assembly.packet().layer(0)  # a whole layer can be used meanwhile
    for piece in pieces_of(AFTER):
        assembly.add(piece)
    assert same(assembly.packet(), NEW)


def test_a_file_that_was_cut() -> None:
    """Rules: P-51, P-60"""
    cut = survey(WHOLE).objects[1].offsets[1] + 5
    found = survey(WHOLE[:cut])
    assert found.beyond == cut - len(WHOLE)
    assert [item.good for item in found.objects] == [2, 1, 0]
    assert [bad.fault for bad in found.objects[1].bad] == [Fault.TRUNCATED]
    lost = found.objects[2].fault
    assert lost is not None
    assert lost.fault is Fault.TRUNCATED
    with pytest.raises(PacketError):
        decode(WHOLE[:cut])
    assert len(list(found.assembly().missing())) == 2  # a chunk, and the list of a layer


def test_a_chunk_table_that_is_hurt_costs_its_object() -> None:
    """Rules: P-62"""
    body = bytearray(WHOLE)
    body[survey(WHOLE).objects[0].offset] ^= 1
    found = survey(bytes(body))
    assert [item.good for item in found.objects] == [0, 2, 2]
    assert found.objects[0].fault is not None
    assert found.objects[0].fault.fault is Fault.DIGEST


def test_bases_are_asked_for() -> None:
    """Rules: P-63"""
    data = b"".join(encode(AFTER, Encoding.DELTA, base=BEFORE))
    alone, held = survey(data), survey(data, held=BEFORE)
    assert {item.fault.fault for item in alone.objects if item.fault} == {Fault.BASE}
    assert held.sound
    assert same(held.assembly(held=BEFORE).packet(), NEW)


def test_without_headers_there_is_nothing_to_look_at() -> None:
    with pytest.raises(PacketError):
        survey(WHOLE[:100])


def test_what_follows_is_told() -> None:
    assert survey(WHOLE + b"123").beyond == 3
