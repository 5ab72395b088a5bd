from __future__ import annotations

import pytest

from mfd.net.addresses import Address, join_line, parse_address, parse_listen

PEER = bytes(range(32))


def test_join_line_says_where_who_and_which_network_and_no_more() -> None:
    """Rules: L-24."""
    address = Address("10.0.0.7", 4761, PEER, "lab & co/2")
    line = join_line(address)
    assert line == f"mfd://10.0.0.7:4761/{PEER.hex()}?network=lab%20%26%20co%2F2"
    assert parse_address(line) == address


def test_plain_and_ipv6_addresses() -> None:
    assert parse_address("host.example:80") == Address("host.example", 80)
    assert parse_address("[::1]:80") == Address("::1", 80)
    assert Address("::1", 80).authority == "[::1]:80"
    assert parse_address("mfd://h:1") == Address("h", 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "host",
        "host:",
        ":80",
        "host:0",
        "host:99999",
        "a@host:80",
        "host:80/x",
        "host:80?a=b",
        "mfd://h:1/12",
        "mfd://h:1?net=x",
        "mfd://h:1?network",
        "http://h:1",
    ],
)
def test_other_text_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse_address(text)


def test_listen() -> None:
    assert parse_listen("0.0.0.0:0") == ("0.0.0.0", 0)
    assert parse_listen("[::]:80") == ("::", 80)
    for text in ("80", ":80", "h:", "h:x", "h:70000"):
        with pytest.raises(ValueError, match="write host:port"):
            parse_listen(text)
