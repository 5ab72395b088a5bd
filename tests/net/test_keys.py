from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mfd.net.keys import KeyFileError, KeyPair, parse_peer_id, short, verify

# RFC 8032, 7.1, test 1: the pair is Ed25519 and nothing else.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


def test_seed_gives_the_public_key_of_the_standard() -> None:
    assert KeyPair.from_seed(SEED).public_key == PUBLIC


def test_signature_holds_for_its_domain_body_and_key_alone() -> None:
    pair, other = KeyPair.from_seed(SEED), KeyPair.from_seed(bytes(32))
    signature = pair.sign("mfd.test.v1", b"body")
    assert verify(PUBLIC, "mfd.test.v1", b"body", signature)
    assert not verify(PUBLIC, "mfd.test.v2", b"body", signature)
    assert not verify(PUBLIC, "mfd.test.v1", b"bode", signature)
    assert not verify(other.public_key, "mfd.test.v1", b"body", signature)


@pytest.mark.parametrize("key", [b"", b"x", bytes(32), b"\xff" * 32, bytes(33)])
@pytest.mark.parametrize("signature", [b"", bytes(63), bytes(64), b"\xff" * 64, bytes(65)])
def test_verify_says_no_to_garbage_and_never_raises(key: bytes, signature: bytes) -> None:
    assert verify(key, "mfd.test.v1", b"body", signature) is False


def test_new_key_file_is_private_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "peer.key"
    first = KeyPair.load_or_create(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert KeyPair.load_or_create(path).public_key == first.public_key
    assert os.listdir(path.parent) == ["peer.key"]


def test_key_file_open_to_others_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    KeyPair.load_or_create(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match=f"chmod 600 {path}"):
        KeyPair.load_or_create(path)


@pytest.mark.parametrize("text", ["", "mfd-key-1", "mfd-key-1 12", "mfd-key-2 " + "0" * 64, "\xff"])
def test_file_without_a_key_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "peer.key"
    path.write_bytes(text.encode("latin1"))
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match="does not hold a key"):
        KeyPair.load_or_create(path)
    assert path.read_bytes() == text.encode("latin1")


def test_secret_is_not_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "peer.key"
    path.write_text("mfd-key-1 " + "ab" * 31)
    path.chmod(0o600)
    with pytest.raises(KeyFileError) as caught:
        KeyPair.load_or_create(path)
    assert "abab" not in str(caught.value)


def test_peer_ids_are_read_and_shortened() -> None:
    assert parse_peer_id(PUBLIC.hex()) == PUBLIC
    assert short(PUBLIC) == "d75a9801"
    for text in ("", "zz", PUBLIC.hex()[:-2]):
        with pytest.raises(ValueError, match="64 hexadecimal digits"):
            parse_peer_id(text)
    with pytest.raises(ValueError, match="32 bytes"):
        KeyPair.from_seed(b"short")
