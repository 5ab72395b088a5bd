"""Addresses of peers as people write them: `host:port`, or a join line.

Source: spec/link.md section 5 (L-24).
"""

from __future__ import annotations

import errno
import ipaddress
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, urlsplit

from mfd.net.keys import parse_peer_id

__all__ = ["Address", "is_any", "is_ip", "join_line", "parse_address", "parse_listen", "why_deaf"]

SCHEME = "mfd://"
DEAF = {  # why nobody can listen somewhere, and what to do
    errno.EADDRINUSE: "is in use: stop the other program, or listen on another port",
    errno.EADDRNOTAVAIL: "cannot be listened on: it is not this machine's; 0.0.0.0 are all it has",
    errno.EACCES: "cannot be listened on without more rights: choose a port above 1023",
}
NETWORK_CHARS_MAX = 64


@dataclass(frozen=True, slots=True)
class Address:
    """Where to dial, and whom to expect there."""

    host: str
    port: int
    peer: bytes | None = None  # refuse anybody else
    network: str | None = None  # refuse any other network

    @property
    def authority(self) -> str:
        """`host:port`, with brackets around an IPv6 host."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `host:port` or `mfd://host:port/ID?network=NAME`.

    Raises: ValueError with one sentence.
    """
    joined = text.startswith(SCHEME)
    try:
        parts = urlsplit(text if joined else f"//{text}")
        host, port = parts.hostname, parts.port
        networks = parse_qs(parts.query, strict_parsing=True) if parts.query else {}
    except ValueError:
        host, port, networks = None, None, {}
    if not host or not port or parts.username is not None or set(networks) - {"network"}:
        raise ValueError(f"{text!r} is not an address: write host:port or a whole join line")
    peer = parts.path.strip("/")
    if not joined and (peer or networks):
        raise ValueError(f"{text!r} is not an address: a join line begins with {SCHEME}")
    network = networks["network"][0][:NETWORK_CHARS_MAX] if networks else None
    return Address(host, port, parse_peer_id(peer) if peer else None, network)


def why_deaf(error: OSError) -> str:
    """Say why an address cannot be listened on, for after the address."""
    told = DEAF.get(error.errno or 0)
    return told or f"cannot be listened on: {error.strerror or error}"


def parse_listen(text: str) -> tuple[str, int]:
    """Read the `host:port` to listen on; port 0 means: choose one.

    Raises: ValueError with one sentence.
    """
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"{text!r} is not an address to listen on: write host:port")
    return host, int(port)


def is_ip(host: str) -> bool:
    """Whether this host is an address, not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_any(host: str) -> bool:
    """Whether this host means every address of this machine, so that nobody can dial it."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def join_line(address: Address) -> str:
    """The line by which others join; it carries no secret."""
    assert address.peer is not None
    line = f"{SCHEME}{address.authority}/{address.peer.hex()}"
    return line + (f"?network={quote(address.network, safe='')}" if address.network else "")
