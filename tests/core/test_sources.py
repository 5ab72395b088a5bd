"""Signed source records: one test per way to be wrong."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from mfd.core.sources import (
    LABELS_MAX,
    MINUTE_US,
    RECORD_BYTES_MAX,
    Record,
    is_name,
    label_shares,
    open_record,
    seal_record,
)
from mfd.core.walk import CHOOSE_KEY
from mfd.packet.errors import PacketError
from mfd.packet.signing import seal
from mfd.sim.standin import StandIn
from tests.core.routing_world import KeyedHash, verify
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

KEY = KeyedHash(1)
NET = "campus"


def draft(name: str = "digits/train", valid_us: int = 60 * MINUTE_US) -> Record:
    return Record(name, b"", 7 << 16, 300, valid_us, b"")


def sealed(fields: list[object], domain: str = "mfd.src.v1") -> bytes:
    return seal(domain, msgpack.packb(fields), KEY)


def test_a_record_comes_back_as_it_was_sealed() -> None:
    """Rules: R-01"""
    record = seal_record(NET, draft(), KEY)
    assert record.holder == KEY.public_key
    assert open_record(record.sealed, NET, verify) == record


def test_the_bytes_are_those_of_the_specification() -> None:
    """Rules: R-01"""
    record = seal_record(NET, draft(), KEY)
    body = msgpack.packb([NET, "digits/train", 7 << 16, 300, 60])
    assert record.sealed == KEY.public_key + KEY.sign("mfd.src.v1", body) + body


def test_capacity_and_labels_are_told_or_not() -> None:
    """Rules: R-46, R-01"""
    for labels, capacity in ((b"\x14", 0), (b"", 700), (b"\x0a\x0a", 700)):
        told = replace(draft(), labels=labels, capacity=capacity)
        record = seal_record(NET, told, KEY)
        assert open_record(record.sealed, NET, verify) == record
        assert (record.labels, record.capacity) == (labels, capacity)


def test_a_peer_announces_the_capacity_that_its_owner_has_set() -> None:
    """Rules: R-46, W-17"""
    world = world_of([("a", "b"), ("a", "c")], "")
    for name, capacity in (("b", 0), ("c", 900)):
        host = world.hosts[name]
        world.kill(host)
        host.config = replace(host.config, capacity=capacity)
        host.learner = StandIn()
        world.start(host)
        host.hold("data/train", 100)
    extra = {CHOOSE_KEY: "capacity"}
    plan = {"layers": 2, "floats": 20, "laps": 1, "min_holders": 2, "extra": extra}
    inject(world, "a", walker_for(world, "a", **plan))
    home = world.hosts["a"]
    assert world.run(until=arrived(home), seconds=120)
    stops = [s["peer"] for s in reports(home, "stop")]
    assert stops == [world.hosts[name].key.public_key.hex() for name in "cb"]
    told = "capacity decides: the most capacity, 900, of 2 that can be chosen"
    assert told in reports(home, "chosen")[0]["reason"]


def test_validity_is_rounded_up_to_whole_minutes() -> None:
    """Rules: R-01"""
    assert seal_record(NET, draft(valid_us=1), KEY).valid_us == MINUTE_US
    assert seal_record(NET, draft(valid_us=MINUTE_US + 1), KEY).valid_us == 2 * MINUTE_US
    assert seal_record(NET, draft(valid_us=1 << 60), KEY).valid_us == 65535 * MINUTE_US


@pytest.mark.parametrize(
    "fields",
    [
        [NET, "a", 1, 1],
        [NET, "a", 1, 1, 1, 0],
        [NET, "a", 1, 1, 1, 1 << 32],
        [NET, "a", 1, 1, 1, 7, b"\x14"],
        [NET, "a", 1, 1, 1, b"\x14", 7, 7],
        [NET, b"a", 1, 1, 1],
        [NET, "a", -1, 1, 1],
        [NET, "a", 1 << 63, 1, 1],
        [NET, "a", True, 1, 1],
        [NET, "a", 1.0, 1, 1],
        [NET, "a", 1, -1, 1],
        [NET, "a", 1, 1 << 63, 1],
        [NET, "a", 1, 1, 0],
        [NET, "a", 1, 1, 1 << 16],
        [NET, "", 1, 1, 1],
        [NET, "a\n", 1, 1, 1],
        [NET, "a" * 513, 1, 1, 1],
        [{}, "a", 1, 1, 1],
        [[[[[]]]], "a", 1, 1, 1],
    ],
    ids=str,
)
def test_fields_out_of_range_are_refused(fields: list[object]) -> None:
    """Rules: R-01, R-02"""
    with pytest.raises(PacketError):
        open_record(sealed(fields), NET, verify)


def test_every_prefix_and_every_flipped_byte_is_refused() -> None:
    """Rules: R-01"""
    good = seal_record(NET, draft(), KEY).sealed
    for cut in range(len(good)):
        with pytest.raises(PacketError):
            open_record(good[:cut], NET, verify)
        flipped = bytearray(good)
        flipped[cut] ^= 0x41
        with pytest.raises(PacketError):
            open_record(bytes(flipped), NET, verify)
    with pytest.raises(PacketError):
        open_record(good + b"\0", NET, verify)
    with pytest.raises(PacketError):
        open_record(sealed([NET, "a", 1, 1, 1]) + bytes(RECORD_BYTES_MAX), NET, verify)


def test_another_domain_or_network_is_refused() -> None:
    """Rules: R-01, R-03"""
    fields: list[object] = [NET, "a", 1, 1, 1]
    assert open_record(sealed(fields), NET, verify).seqno == 1
    with pytest.raises(PacketError):
        open_record(sealed(fields, "mfd.plan.v1"), NET, verify)
    with pytest.raises(PacketError):
        open_record(sealed(fields), "other", verify)


def test_a_peers_own_name_has_one_holder() -> None:
    """Rules: R-02"""
    own, other = "@" + KEY.public_key.hex(), "@" + KeyedHash(2).public_key.hex()
    assert open_record(sealed([NET, own, 1, 1, 1]), NET, verify).name == own
    for name in (other, own.upper(), "@", own + "x"):
        with pytest.raises(PacketError):
            open_record(sealed([NET, name, 1, 1, 1]), NET, verify)


def test_names_are_measured_in_utf8_bytes() -> None:
    """Rules: R-02"""
    assert is_name("\u00e9" * 256)
    assert not is_name("\u00e9" * 257)
    assert not is_name("\ud800")
    assert not is_name(b"a")


@pytest.mark.parametrize("labels", [b"", b"\x15", b"\x01" * 129, "text", -3, None])
def test_a_histogram_of_another_form_is_refused(labels: object) -> None:
    """Rules: R-01, R-25"""
    with pytest.raises(PacketError):
        open_record(sealed([NET, "a", 1, 1, 1, labels]), NET, verify)


def test_a_histogram_travels_in_the_record() -> None:
    """Rules: R-01, R-25"""
    record = seal_record(NET, replace(draft(), labels=bytes([20, 0, 1])), KEY)
    assert open_record(record.sealed, NET, verify) == record
    assert record.labels == bytes([20, 0, 1])
    longest = replace(draft("n" * 512), labels=b"\x01" * LABELS_MAX)
    assert len(seal_record("n" * 64, longest, KEY).sealed) <= RECORD_BYTES_MAX


def test_shares_are_rounded_to_a_twentieth() -> None:
    """Rules: R-25"""
    assert label_shares({0: 51, 2: 49}) == bytes([10, 0, 10])
    assert label_shares({1: 1, 0: 39}) == bytes([20, 0])
    assert label_shares({}) == b""
    assert label_shares({LABELS_MAX: 1}) == b""
    assert len(label_shares({LABELS_MAX - 1: 1})) == LABELS_MAX
