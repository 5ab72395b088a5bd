"""Admitting peers by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfd.cli.config import load_settings
from mfd.cli.errors import Misuse
from mfd.cli.main import main
from mfd.cli.running import make_node
from mfd.net.keys import KeyPair

DIGITS = {"digits/train": "sklearn:digits"}


def test_a_token_is_made_and_believed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules: R-50"""
    key = tmp_path / "issuer"
    me = KeyPair.load_or_create(tmp_path / "state" / "key").public_key.hex()
    order = ["token", me, "--network", "ward", "--key", str(key)]
    assert main([*order, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert main(order) == 0
    lines = capsys.readouterr().out
    assert made["token"] in lines
    assert made["issuer"] in lines
    file = tmp_path / "mfd.toml"
    file.write_text(f'network = "ward"\n{lines}')
    settings = load_settings(file, {"hold": DIGITS})
    node = make_node(settings, tmp_path / "state", lambda told: None)
    assert node._config.token is not None
    assert str(node._config.token) == made["token"]
    assert {issuer.hex() for issuer in node._config.issuers} == {made["issuer"]}
    stranger = tmp_path / "stranger"
    with pytest.raises(Misuse, match="a token that is not for it"):
        make_node(settings, stranger, lambda told: None)
    bare = load_settings(None, {"network": "ward", "issuers": [made["issuer"]]})
    assert make_node(bare, stranger, lambda told: None)._config.token is None
    holding = bare.model_copy(update={"hold": DIGITS})
    with pytest.raises(Misuse, match=r"has no token.*mfd token [0-9a-f]{64} --network ward"):
        make_node(holding, stranger, lambda told: None)


def test_a_token_is_taken_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Rules: R-51"""
    order = ["token", "ab" * 32, "--network", "ward", "--key", str(tmp_path / "key"), "--revoke"]
    assert main(order) == 0
    line = capsys.readouterr().out
    file = tmp_path / "mfd.toml"
    file.write_text(f'network = "ward"\n{line}')
    node = make_node(load_settings(file, {}), tmp_path / "state", lambda told: None)
    assert main([*order, "--json"]) == 0
    raw = json.loads(capsys.readouterr().out)["revoked"]
    assert node._config.revoked == (bytes.fromhex(raw),)
    for wrong, network in ((raw, "mfd"), ("00", "ward"), ("no", "ward")):
        settings = load_settings(None, {"network": network, "revoked": [wrong]})
        with pytest.raises(Misuse, match="is no revocation of network"):
            make_node(settings, tmp_path / "state", lambda told: None)


@pytest.mark.parametrize("peer", ["", "abc", "zz" * 32])
def test_what_is_no_peer_is_not_admitted(
    peer: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["token", peer, "--key", str(tmp_path / "key")]) == 2
    assert "is not a peer id" in capsys.readouterr().err


def test_a_token_that_is_none_is_told(tmp_path: Path) -> None:
    settings = load_settings(None, {"token": "00ff"})
    with pytest.raises(Misuse, match="is not a token"):
        make_node(settings, tmp_path, lambda told: None)
