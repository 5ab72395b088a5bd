"""Good peers of earlier days: a help, not a promise."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from mfd.core.effects import Remember
from mfd.core.events import Addressed, Remembered
from mfd.core.records import is_address
from mfd.net.addresses import Address
from mfd.net.driver import Node
from mfd.net.dwelling import Dwelling, own_addresses
from mfd.net.remembered import read_remembered, write_remembered
from tests.net.worlds import core_of, keys, node, perform

PEERS = ((keys(1).public_key, ("10.0.0.1:7000", "[::1]:7000")), (keys(2).public_key, ()))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Rules: M-21"""
    assert read_remembered(tmp_path) == ()
    write_remembered(tmp_path, PEERS)
    write_remembered(tmp_path, PEERS)
    assert read_remembered(tmp_path) == PEERS
    assert [path.name for path in tmp_path.iterdir()] == ["peers.json"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "7", "[7]", '[["ab", []]]', "[[]]", '[["%s", ["nowhere"]]]', "[" * 9_000, '"\ud800"'],
)
def test_what_cannot_be_read_is_logged_and_ignored(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rules: M-21"""
    told = text % keys(1).public_key.hex() if "%s" in text else text
    (tmp_path / "peers.json").write_bytes(told.encode("utf-8", "surrogatepass"))
    with caplog.at_level(logging.WARNING, "mfd"):
        assert read_remembered(tmp_path) == ()
    assert "peers.json" in caplog.text


def test_a_folder_that_is_gone_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Rules: M-21"""
    with caplog.at_level(logging.WARNING, "mfd"):
        write_remembered(tmp_path / "gone", PEERS)
    assert "peers are not remembered" in caplog.text


async def test_a_node_remembers_over_a_restart(tmp_path: Path) -> None:
    """Rules: M-21"""
    async with node(tmp_path, 1) as one:
        assert not core_of(one).of(Remembered)
        perform(one, Remember(PEERS))
    assert json.loads((tmp_path / "state1" / "peers.json").read_text())
    async with node(tmp_path, 1) as one:
        await core_of(one).wait_for(lambda: core_of(one).of(Remembered))
        assert core_of(one).of(Remembered) == [Remembered(PEERS)]


def port_of(node: Node) -> int:
    return int(node.address.rpartition(":")[2])


async def test_a_machine_that_moves_tells_its_core() -> None:
    """Rules: M-40"""
    at, told = ["10.0.0.1:7"], list[Addressed]()
    anywhere, here = Address("0.0.0.0", 7), Address("10.0.0.1", 7)
    dwelling = Dwelling(anywhere, (), told.append, lambda host, port: tuple(at))
    assert told == [Addressed(("10.0.0.1:7",))]
    dwelling.look_again()
    assert len(told) == 1
    at[:] = ["10.9.9.9:7"]
    dwelling.look_again()
    assert told[1:] == [Addressed(("10.9.9.9:7",))]
    at.clear()  # between two networks
    dwelling.look_again()
    assert len(told) == 2
    dwelling.cancel()
    for address, owner in ((here, ("10.0.0.1:7",)), (anywhere, ("a.example:1",))):
        fixed = Dwelling(address, owner, told.append, lambda host, port: ("10.5.5.5:7",))
        assert told[-1] == Addressed(owner)
        fixed.cancel()


def test_own_addresses_can_be_dialled() -> None:
    """Rules: M-40"""
    assert all(map(is_address, own_addresses("::", 7_000)))
    assert not any(address.startswith("[") for address in own_addresses("0.0.0.0", 7_000))


async def test_the_core_is_told_where_others_dial(tmp_path: Path) -> None:
    """Rules: M-02"""
    async with node(tmp_path, 1) as one:
        assert core_of(one).of(Addressed) == [Addressed((one.address,))]
    async with node(tmp_path, 2, listen="0.0.0.0:0") as two:
        [told] = core_of(two).of(Addressed)
        assert told.addresses
        assert all(address.endswith(f":{port_of(two)}") for address in told.addresses)
    async with node(tmp_path, 3, listen="0.0.0.0:0", advertise=["a.example:1"]) as three:
        assert core_of(three).of(Addressed) == [Addressed(("a.example:1",))]
