"""What a peer signs about itself: what was sealed comes back, anything else is one typed error."""

from __future__ import annotations

from contextlib import suppress

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfd.core.records import (
    CUSTODIAN,
    DOMAIN,
    SEALED_BYTES_MAX,
    crowd_of,
    dial_line,
    is_address,
    open_peer_record,
    seal_peer_record,
)
from mfd.net.addresses import parse_address
from mfd.packet.errors import PacketError
from mfd.packet.signing import seal
from mfd.sim.keys import SimKey, sim_verify

KEY = SimKey(b"somebody")
BODY = ["mfd", 7, ["10.0.0.1:7000", "[2001:db8::1]:7000"], CUSTODIAN, 60]


def sealed(body: object, domain: str = DOMAIN) -> bytes:
    return seal(domain, msgpack.packb(body), KEY)


def test_what_is_sealed_comes_back() -> None:
    """Rules: M-01, M-02"""
    made = seal_peer_record(
        "mfd", KEY, seq=7, addresses=BODY[2], caps=CUSTODIAN, valid_us=3_600_000_000
    )
    assert made.sealed == sealed(BODY)
    assert open_peer_record(made.sealed, "mfd", sim_verify) == made
    assert made.peer == KEY.public_key
    assert made.valid_us == 3_600_000_000


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, "other"),
        (0, b"mfd"),
        (1, -1),
        (1, 1 << 63),
        (1, True),
        (1, 7.0),
        (2, "10.0.0.1:7000"),
        (2, ["10.0.0.1"]),
        (2, ["10.0.0.1:7000"] * 9),
        (2, ["h" * 80 + ":1"]),
        (3, 1 << 32),
        (3, None),
        (4, 0),
        (4, 1 << 16),
    ],
)
def test_other_fields_are_refused(at: int, value: object) -> None:
    """Rules: M-01, M-02"""
    body = [*BODY[:at], value, *BODY[at + 1 :]]
    with pytest.raises(PacketError):
        open_peer_record(sealed(body), "mfd", sim_verify)


def test_other_forms_signatures_and_sizes_are_refused() -> None:
    """Rules: M-01"""
    good = sealed(BODY)
    bad = [sealed(BODY[:4]), sealed([*BODY, 1]), sealed({}), sealed(BODY, "mfd.src.v1"), good[:90]]
    bad += [good + b"\0", b"", good[:96] + b"\xc1", seal(DOMAIN, b"\x93" * 700, KEY)]
    bad += [good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :] for at in range(0, len(good), 7)]
    bad += [seal(DOMAIN, bytes(SEALED_BYTES_MAX), KEY)]
    for record in bad:
        with pytest.raises(PacketError):
            open_peer_record(record, "mfd", sim_verify)


@given(st.binary(max_size=300))
def test_any_bytes_give_a_record_or_a_packet_error(body: bytes) -> None:
    """Rules: M-01"""
    for record in (body, seal(DOMAIN, body, KEY)):
        with suppress(PacketError):
            open_peer_record(record, "mfd", sim_verify)


def test_addresses() -> None:
    """Rules: M-02"""
    good = ["10.0.0.1:1", "peer-1.example.org:65535", "[::1]:80", "localhost:7000"]
    bad = ["", ":80", "host", "host:", "host:0", "host:65536", "::1:80", "ho st:80", "a/b:80"]
    bad += ["[::1:80", "[nonsense]:80", "user@host:80", "host:8\u0660", "h\u00f6st:80", 7, None]
    assert all(map(is_address, good))
    assert not any(map(is_address, bad))


def test_a_dial_line_names_peer_and_network() -> None:
    """Rules: M-18"""
    address = parse_address(dial_line("a b/c", KEY.public_key, "[::1]:7000"))
    assert (address.host, address.port) == ("::1", 7000)
    assert (address.peer, address.network) == (KEY.public_key, "a b/c")


def test_crowds_are_what_one_owner_can_have_many_of() -> None:
    """Rules: M-15"""
    assert crowd_of("8.8.8.8:1") == crowd_of("8.8.8.9:2") != crowd_of("8.8.9.8:1")
    assert crowd_of("[2a00:1:2:3::1]:1") == crowd_of("[2a00:1:2:4::1]:1")
    assert crowd_of("Example.org:1") == crowd_of("example.org:2") != ""
    for private in ("10.0.0.1:1", "192.168.1.1:1", "127.0.0.1:1", "[::1]:1", "[fe80::1]:1"):
        assert crowd_of(private) == ""
