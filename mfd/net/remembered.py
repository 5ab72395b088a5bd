"""The good peers of earlier days, in a small file beside the ledger.

    peers.json    [[peer id in hexadecimal, [host:port, ...]], ...], the best last

Rules of this file: it is a help, not a promise. What cannot be written or read is logged and
forgotten; a peer starts without it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from mfd.core.records import ADDRESSES_MAX, is_address
from mfd.net.keys import parse_peer_id

__all__ = ["read_remembered", "write_remembered"]

log = logging.getLogger("mfd")

NAME = "peers.json"
FILE_BYTES_MAX = 256 << 10
PEERS_MAX = 1_024

Peers = tuple[tuple[bytes, tuple[str, ...]], ...]


def write_remembered(state: Path, peers: Iterable[tuple[bytes, tuple[str, ...]]]) -> None:
    """Replace what was remembered before."""
    path = state / NAME
    fresh = path.with_suffix(".new")
    try:
        fresh.write_text(json.dumps([[peer.hex(), list(found)] for peer, found in peers]) + "\n")
        os.replace(fresh, path)
    except OSError as exc:
        log.warning("peers are not remembered: %s cannot be written: %s", path, exc)


def read_remembered(state: Path) -> Peers:
    """Return what was remembered; nothing if the file is missing or cannot be understood."""
    path = state / NAME
    try:
        with path.open("rb") as file:
            rows = json.loads(file.read(FILE_BYTES_MAX))
        return tuple((parse_peer_id(peer), _addresses(found)) for peer, found in rows[:PEERS_MAX])
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError, RecursionError) as exc:
        log.warning("remembered peers in %s cannot be read and are left alone: %s", path, exc)
        return ()


def _addresses(found: object) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(map(is_address, found)):
        raise ValueError(f"{found!r} are not addresses host:port")
    return tuple(found[:ADDRESSES_MAX])
