"""Settings: files under flags, checked whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfd.cli.config import load_settings, parse_hold, read_secret
from mfd.cli.errors import Misuse
from mfd.topology.values import parse_bytes


def test_flags_stand_over_the_file_and_lists_add_up(tmp_path: Path) -> None:
    path = tmp_path / "mfd.toml"
    path.write_text(
        'listen = "127.0.0.1:1"\njoin = ["a:1"]\nslots = 3\nlease_seconds = 5\nstate = "s"\n'
        '[hold]\nx = "one"\ny = "two"\n'
    )
    over = {"listen": "127.0.0.1:2", "join": ["b:2"], "hold": {"y": "three"}}
    settings = load_settings(path, over)
    assert settings.listen == "127.0.0.1:2"
    assert settings.join == ["a:1", "b:2"]
    assert settings.hold == {"x": "one", "y": "three"}
    assert (settings.slots, settings.lease_seconds) == (3, 5.0)
    assert settings.state == str(tmp_path / "s")  # relative to the file, wherever it is read


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("slot = 3", "did you mean 'slots'"),
        ("zzzz = 3", "known are"),
        ("slots = 0", "slots: "),
        ("slots = true", "slots: "),
        ("lease_seconds = inf", "lease_seconds: "),
        ('join = "a:1"', "join: "),
        ("hold = [1]", "hold: "),
        ('network = ""', "network: "),
        ('allow = ["12"]', "allow: '12' is not a peer id"),
        ('listen = "here"', "host:port"),
        ('advertise = ["here"]', "'here' is not host:port"),
        (f"advertise = {['a:1'] * 9}", "at most 8"),
        ("neighbours = 2", "neighbours: "),
        ('open_network = "yes"', "open_network: "),
    ],
)
def test_wrong_files_are_told_in_one_sentence(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "mfd.toml"
    path.write_text(text)
    with pytest.raises(Misuse, match=r"mfd\.toml") as told:
        load_settings(path, {"join": [], "hold": {}})
    assert part in str(told.value)
    assert "\n" not in str(told.value)


def test_a_wrong_flag_is_not_the_fault_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mfd.toml"
    path.write_text("slots = 3")
    with pytest.raises(Misuse, match=r"^settings: 'nowhere' is not an address"):
        load_settings(path, {"join": ["nowhere"]})


def test_holdings_keep_equals_signs_of_the_address() -> None:
    assert parse_hold("a=csv:f?label=x&part=1/2") == ("a", "csv:f?label=x&part=1/2")
    for wrong in ("a", "a=", "=b"):
        with pytest.raises(Misuse):
            parse_hold(wrong)


def test_secrets_come_from_private_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    assert read_secret(None, "key") == b""
    path.write_text("0123456789abcdef\n")
    path.chmod(0o640)
    with pytest.raises(Misuse, match="chmod 600"):
        read_secret(str(path), "key")
    path.chmod(0o600)
    assert read_secret(str(path), "key") == b"0123456789abcdef"
    path.write_text("short")
    with pytest.raises(Misuse, match="16 to"):
        read_secret(str(path), "key")
    with pytest.raises(Misuse, match="cannot be read"):
        read_secret(str(tmp_path / "none"), "key")


def test_memory_is_told_as_people_write_it(tmp_path: Path) -> None:
    file = tmp_path / "mfd.toml"
    file.write_text('memory = "1.5GiB"\n')
    assert parse_bytes(load_settings(file, {}).memory) == 3 << 29
    assert parse_bytes(load_settings(file, {"memory": "500 MB"}).memory) == 500_000_000
    assert parse_bytes(load_settings(file, {"memory": 1 << 20}).memory) == 1 << 20
    assert parse_bytes(load_settings(None, {}).memory) == 0
    for wrong in ("2 gigs", "-1", "", "GiB", "nan", "1e99"):
        with pytest.raises(Misuse, match="is no amount of memory: write 2GiB"):
            load_settings(None, {"memory": wrong})


@pytest.mark.parametrize("name", ["memory", "whole"])
@pytest.mark.parametrize("little", ["100", 512, "1000000", "77B"])
def test_an_amount_that_holds_no_model_is_refused(name: str, little: str | int) -> None:
    with pytest.raises(Misuse, match=f"{name}: .* too little .* units are KB, MB, .*MiB"):
        load_settings(None, {name: little})
