"""`mfd token`: admit a peer to a network whose owners want tokens.

Rules of this file: what is printed is no secret; the key that signs is.
Source: spec/routing.md, section "Tokens".
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from mfd.cli.errors import Misuse
from mfd.cli.sending import user_key
from mfd.core.config import Config
from mfd.core.sources import is_member
from mfd.core.tokens import issue, open_revocation, parse_token, revoke
from mfd.net.keys import parse_peer_id, verify

__all__ = ["admission", "revocations", "token", "withdraw"]


def withdraw(peer: str, network: str, serial: int, key: Path | None, *, as_json: bool) -> None:
    """Sign that a peer's tokens up to `serial` are void, and print it. Raises: Misuse."""
    try:
        member = parse_peer_id(peer)
        made = revoke(network, member, serial, user_key(key)).hex()
    except ValueError as exc:
        raise Misuse(str(exc)) from exc
    told = f'revoked = ["{made}"]  # in mfd.toml of any peer of {network}: it tells the others'
    print(json.dumps({"member": peer, "revoked": made}) if as_json else told)


def token(peer: str, network: str, serial: int, key: Path | None, *, as_json: bool) -> None:
    """Sign a token for a peer, and print what both sides write into mfd.toml. Raises: Misuse."""
    try:
        member = parse_peer_id(peer)
        keys = user_key(key)
        made = issue(network, member, serial, keys)
    except ValueError as exc:
        raise Misuse(str(exc)) from exc
    issuer = keys.public_key.hex()
    if as_json:
        print(json.dumps({"issuer": issuer, "member": peer, "token": str(made)}))
        return
    print(f'token = "{made}"  # in mfd.toml of {peer[:8]}...')
    print(f'issuers = ["{issuer}"]  # in mfd.toml of every peer of {network}')


def admission(
    network: str, issuers: Iterable[str], text: str | None, me: bytes, *, holds: bool
) -> Config:
    """The part of the configuration that tells who is a member. Raises: Misuse."""
    try:
        named = frozenset(map(parse_peer_id, issuers))
    except ValueError as exc:
        raise Misuse(f"issuers: {exc}") from exc
    try:
        told = parse_token(text) if text is not None else None
    except ValueError as exc:
        raise Misuse(f"token: {exc}") from exc
    config = Config(network=network, issuers=named, token=told)
    if (holds or told is not None) and not is_member(config, me, verify):
        why = "has no token" if told is None else "has a token that is not for it"
        raise Misuse(
            f"this peer {why}, and network {network!r} believes only holders that an issuer has "
            f"admitted: let one run `mfd token {me.hex()} --network {network}`"
        )
    return config


def revocations(network: str, texts: Iterable[str]) -> tuple[bytes, ...]:
    """Read revocations of this network. Raises: Misuse."""
    found = []
    for text in texts:
        try:
            raw = bytes.fromhex(text)
        except ValueError:
            raw = b""
        if open_revocation(raw, network, verify) is None:
            raise Misuse(
                f"revoked: {text[:16]!r}... is no revocation of network {network!r}: "
                "`mfd token ID --revoke` prints one"
            )
        found.append(raw)
    return tuple(found)
