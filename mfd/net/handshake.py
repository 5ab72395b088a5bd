"""The handshake `mfd-auth/1`: who is at the other end, proven to both.

Rules of this file: bytes in, bytes out; no socket, no clock, no chance (nonces are handed in). Any
bytes from the other side give an answer or a `Refused`, nothing else.
Source: spec/link.md section 2 (L-06 to L-13).
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import Any

import msgpack

from mfd.packet.signing import KEY_BYTES, Signer, Verifier

__all__ = [
    "MESSAGE_BYTES_MAX",
    "NONCE_BYTES",
    "Dialler",
    "Listener",
    "Refusal",
    "Refused",
    "Terms",
    "bind_bulk",
    "bound",
    "is_bulk",
    "read_bound",
    "read_bulk",
    "refusal",
]

MESSAGE_BYTES_MAX = 4096
NONCE_BYTES = 32
NETWORK_BYTES_MAX = 64
VERSIONS = (1,)
VERSIONS_MAX = 8
CAPS_MAX = 16
_PROTOCOL = b"mfd-auth/1"
_DOMAINS = {b"S": "mfd.link.listener.v1", b"C": "mfd.link.dialler.v1"}
_HELLO_C, _HELLO_S, _AUTH_C, _AUTH_OK, _REFUSED, _BULK, _BULK_OK = range(1, 8)


class Refusal(IntEnum):
    """Why a handshake ended; the numbers travel, the sentences stay (L-15)."""

    MALFORMED = 1
    VERSION = 2
    NETWORK = 3
    PROOF = 4
    KEY = 5
    SELF = 6
    IDENTITY = 7
    NOT_ALLOWED = 8
    DUPLICATE = 9
    TOKEN = 10
    LATE = 11
    STOPPING = 12


_SENTENCES = {
    Refusal.MALFORMED: "a handshake message did not have the form of mfd-auth/1",
    Refusal.VERSION: "the two peers share no version of mfd-auth: update the older one",
    Refusal.NETWORK: "the two peers belong to different networks: compare their network names",
    Refusal.PROOF: "a signature did not verify: something between the peers changes what they say",
    Refusal.KEY: "the two peers do not share the network key: compare their key files",
    Refusal.SELF: "the address leads back to this peer itself",
    Refusal.IDENTITY: "another peer than the expected one answered: ask for a fresh join line",
    Refusal.NOT_ALLOWED: "the peer id is not on the allow-list",
    Refusal.DUPLICATE: "there is already a link to this peer",
    Refusal.TOKEN: "the token of the bulk connection is not known or was used before",
    Refusal.LATE: "the handshake took longer than 5 seconds",
    Refusal.STOPPING: "the peer at this address is stopping: it is dialled again later",
}


class Refused(Exception):
    """The handshake is over. `here`: this side refused, so the other is still to be told."""

    def __init__(self, code: Refusal, *, here: bool = True) -> None:
        self.code = code
        self.here = here
        by = "" if here else "refused by the other side: "
        super().__init__(by + _SENTENCES[code])


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms this peer takes a link."""

    network: str = "mfd"
    network_key: bytes = b""  # secret shared by the members; empty: none
    allow: frozenset[bytes] | None = None  # peer ids; None: everybody with the network's terms

    def __post_init__(self) -> None:
        if not 0 < len(self.network.encode()) <= NETWORK_BYTES_MAX:
            raise ValueError(f"a network name has 1 to {NETWORK_BYTES_MAX} bytes")
        if self.network_key and len(self.network_key) < 16:
            raise ValueError("a network key has at least 16 bytes")


class _Side:
    """What both sides share: terms, proofs and the transcript."""

    def __init__(
        self, signer: Signer, verify: Verifier, terms: Terms, *, certificate: bytes, nonce: bytes
    ) -> None:
        assert len(nonce) == NONCE_BYTES
        self._signer = signer
        self._verify = verify
        self._terms = terms
        self._certificate = sha256(certificate).digest() if certificate else b""
        self._nonce = nonce
        self._transcript = b""
        self.peer = b""  # the other side's id: claimed at first, proven once the handshake is over

    def _seal(
        self,
        dialler: tuple[bytes, bytes],
        listener: tuple[bytes, bytes],
        *,
        hellos: tuple[bytes, bytes],
    ) -> None:
        """Fix the transcript T from both (id, nonce) and the exact hello bytes."""
        (id_c, nonce_c), (id_s, nonce_s) = dialler, listener
        network = self._terms.network.encode()
        hasher = sha256(_PROTOCOL)
        for value in (network, id_c, id_s, self._certificate, nonce_c, nonce_s, *hellos):
            hasher.update(len(value).to_bytes(4, "little") + value)
        self._transcript = hasher.digest()

    def _prove(self, role: bytes) -> tuple[bytes, bytes]:
        return self._signer.sign(_DOMAINS[role], self._transcript), self._mac(role)

    def _mac(self, role: bytes) -> bytes:
        key = self._terms.network_key
        return hmac.digest(key, self._transcript + role, "sha256") if key else b""

    def _check(self, role: bytes, signature: bytes, mac: bytes) -> None:
        """Check the other side's proofs (L-09, L-10) and its place on the list (L-13)."""
        if not self._verify(self.peer, _DOMAINS[role], self._transcript, signature):
            raise Refused(Refusal.PROOF)
        if not hmac.compare_digest(mac, self._mac(role)):
            raise Refused(Refusal.KEY)
        if self._terms.allow is not None and self.peer not in self._terms.allow:
            raise Refused(Refusal.NOT_ALLOWED)


class Dialler(_Side):
    """hello() -> answer(HELLO_S) -> finish(AUTH_OK); then `peer` is proven."""

    def __init__(
        self,
        signer: Signer,
        verify: Verifier,
        terms: Terms,
        *,
        nonce: bytes,
        certificate: bytes = b"",
        expected: bytes | None = None,
        caps: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(signer, verify, terms, certificate=certificate, nonce=nonce)
        self._expected = expected
        self._caps = dict(caps or {})
        self._hello = b""

    def hello(self) -> bytes:
        """Return HELLO_C."""
        me, network = self._signer.public_key, self._terms.network
        self._hello = _pack([_HELLO_C, list(VERSIONS), network, me, self._nonce, self._caps])
        return self._hello

    def answer(self, message: bytes) -> bytes:
        """Check HELLO_S; return AUTH_C. Raises: Refused."""
        match _read(message, _HELLO_S):
            case [bytes() as hello, bytes() as signature, bytes() as mac]:
                pass
            case _:
                raise Refused(Refusal.MALFORMED)
        match _unpack(hello):
            case [int() as version, bytes() as peer, bytes() as nonce, dict() as caps]:
                _check_hello(peer, nonce, caps)
            case _:
                raise Refused(Refusal.MALFORMED)
        me = self._signer.public_key
        if version not in VERSIONS:
            raise Refused(Refusal.VERSION)
        if peer == me:
            raise Refused(Refusal.SELF)
        if self._expected is not None and peer != self._expected:
            raise Refused(Refusal.IDENTITY)
        self.peer = peer
        self._seal((me, self._nonce), (peer, nonce), hellos=(self._hello, hello))
        self._check(b"S", signature, mac)
        return _pack([_AUTH_C, *self._prove(b"C")])

    def finish(self, message: bytes) -> bytes:
        """Check AUTH_OK; return the token for the bulk connection. Raises: Refused."""
        match _read(message, _AUTH_OK):
            case [bytes() as token] if len(token) == NONCE_BYTES:
                return token
        raise Refused(Refusal.MALFORMED)


class Listener(_Side):
    """answer(HELLO_C) -> finish(AUTH_C); then `peer` is proven."""

    def __init__(
        self,
        signer: Signer,
        verify: Verifier,
        terms: Terms,
        *,
        nonce: bytes,
        certificate: bytes = b"",
    ) -> None:
        super().__init__(signer, verify, terms, certificate=certificate, nonce=nonce)
        self.caps: dict[str, int] = {}  # what the dialler told besides

    def answer(self, message: bytes) -> bytes:
        """Check HELLO_C; return HELLO_S. Raises: Refused."""
        match _read(message, _HELLO_C):
            case [
                list() as versions,
                str() as network,
                bytes() as peer,
                bytes() as nonce,
                dict() as caps,
            ] if 0 < len(versions) <= VERSIONS_MAX:
                _check_hello(peer, nonce, caps)
            case _:
                raise Refused(Refusal.MALFORMED)
        shared = [version for version in VERSIONS if version in versions]
        if not shared:
            raise Refused(Refusal.VERSION)
        if network != self._terms.network:
            raise Refused(Refusal.NETWORK)
        me = self._signer.public_key
        if peer == me:
            raise Refused(Refusal.SELF)
        self.peer, self.caps = peer, caps
        hello = _pack([max(shared), me, self._nonce, {}])
        self._seal((peer, nonce), (me, self._nonce), hellos=(message, hello))
        return _pack([_HELLO_S, hello, *self._prove(b"S")])

    def finish(self, message: bytes, token: bytes) -> bytes:
        """Check AUTH_C; return AUTH_OK with the token for the bulk connection. Raises: Refused."""
        match _read(message, _AUTH_C):
            case [bytes() as signature, bytes() as mac]:
                self._check(b"C", signature, mac)
                return _pack([_AUTH_OK, token])
        raise Refused(Refusal.MALFORMED)


def is_bulk(message: bytes) -> bool:
    """Say whether the first message of a connection binds a bulk connection."""
    return message[1:2] == bytes((_BULK,))


def bind_bulk(token: bytes) -> bytes:
    """First message of the bulk connection (L-16)."""
    return _pack([_BULK, token])


def read_bulk(message: bytes) -> bytes:
    """Return the token of a bulk connection. Raises: Refused."""
    match _read(message, _BULK):
        case [bytes() as token] if len(token) == NONCE_BYTES:
            return token
    raise Refused(Refusal.MALFORMED)


def bound() -> bytes:
    """The listener's word that the link is up (L-17)."""
    return _pack([_BULK_OK])


def read_bound(message: bytes) -> None:
    """Check that word. Raises: Refused."""
    if _read(message, _BULK_OK):
        raise Refused(Refusal.MALFORMED)


def refusal(code: Refusal) -> bytes:
    """The message that tells the other side why."""
    return _pack([_REFUSED, int(code)])


def _check_hello(peer: bytes, nonce: bytes, caps: dict[Any, Any]) -> None:
    right = len(peer) == KEY_BYTES and len(nonce) == NONCE_BYTES and len(caps) <= CAPS_MAX
    if not right or not all(type(k) is str and type(v) is int for k, v in caps.items()):
        raise Refused(Refusal.MALFORMED)


def _pack(message: list[Any]) -> bytes:
    return bytes(msgpack.packb(message))


def _unpack(message: bytes) -> list[Any]:
    try:
        value = msgpack.unpackb(
            message, max_array_len=16, max_map_len=CAPS_MAX, max_str_len=256, max_bin_len=1024
        )
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError):
        value = None
    if not isinstance(value, list):
        raise Refused(Refusal.MALFORMED)
    return value


def _read(message: bytes, kind: int) -> list[Any]:
    """Open a message of one kind. Raises: Refused, also where the other side has refused."""
    if len(message) > MESSAGE_BYTES_MAX:
        raise Refused(Refusal.MALFORMED)
    match _unpack(message):
        case [int() as found, *rest] if found == kind:
            return rest
        case [int() as found, int() as code] if found == _REFUSED and code in _SENTENCES:
            raise Refused(Refusal(code), here=False)
    raise Refused(Refusal.MALFORMED)
