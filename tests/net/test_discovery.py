"""Peers find each other on the LAN; here the LAN is the loopback interface."""

from __future__ import annotations

import asyncio
import socket
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mfd.core.events import Discovered
from mfd.net.discovery import Discovery, DiscoveryError, instance_name, read_instance
from mfd.net.driver import NodeError
from tests.net.worlds import core_of, keys, node

HERE = "127.0.0.1"


def multicast_works() -> bool:
    """Whether a datagram to the group of mDNS comes back over the loopback interface."""
    group = socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 0))
            probe.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
            probe.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            probe.settimeout(1)
            probe.sendto(b"?", ("224.0.0.251", probe.getsockname()[1]))
            return probe.recv(1) == b"?"
        except OSError:
            return False


needs_multicast = pytest.mark.skipif(
    not multicast_works(), reason="multicast does not work on the loopback interface here"
)
pytest.importorskip("zeroconf", reason="the extra `lan` is not installed")


@needs_multicast
async def test_peers_of_one_network_find_each_other() -> None:
    """Rules: M-32"""
    found: asyncio.Queue[tuple[str, bytes, str]] = asyncio.Queue()

    def searcher(network: str, number: int) -> Discovery:
        told = lambda peer, address: found.put_nowait((f"{network}{number}", peer, address))  # noqa: E731
        peer = keys(number).public_key
        return Discovery(network, peer, [f"127.0.0.1:{7000 + number}"], told, host=HERE)

    async with asyncio.timeout(20):
        async with searcher("x", 1), searcher("y", 2), searcher("x", 3):
            first, second = sorted([await found.get(), await found.get()])
    assert first == ("x1", keys(3).public_key, "127.0.0.1:7003")
    assert second == ("x3", keys(1).public_key, "127.0.0.1:7001")
    assert found.empty()


@needs_multicast
async def test_nodes_tell_their_cores(tmp_path: Path) -> None:
    """Rules: M-32, M-33"""
    async with node(tmp_path, 1, lan=True) as one, node(tmp_path, 2, lan=True) as two:
        for here, there in ((one, two), (two, one)):
            await core_of(here).wait_for(lambda here=here: core_of(here).of(Discovered))
            assert core_of(here).of(Discovered)[0] == Discovered(there._core.id, there.address)


def info(**over: Any) -> Any:
    peer = keys(5).public_key
    known = {
        "properties": {b"id": peer.hex().encode()},
        "port": 7000,
        "parsed_addresses": lambda: ["fe80::1", "10.0.0.5"],
    }
    return SimpleNamespace(**{**known, **over})


def test_what_an_instance_says_must_make_sense() -> None:
    """Rules: M-32"""
    peer = keys(5).public_key
    name = instance_name("x", peer)
    assert name.endswith(f"-{peer.hex()[:16]}._mfd._tcp.local.")
    assert read_instance("x", name, info()) == (peer, "10.0.0.5:7000")
    six = info(parsed_addresses=lambda: ["2001:db8::5"])
    assert read_instance("x", name, six) == (peer, "[2001:db8::5]:7000")
    for wrong in (
        info(properties={}),
        info(properties=None),
        info(properties={b"id": None}),
        info(properties={b"id": b"\xff"}),
        info(properties={b"id": keys(6).public_key.hex().encode()}),
        info(port=0),
        info(parsed_addresses=list),
        info(parsed_addresses=lambda: ["fe80::1%eth0", "fe80::2"]),
    ):
        assert read_instance("x", name, wrong) is None
    assert read_instance("y", name, info()) is None


async def test_without_the_package_one_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rules: M-32"""
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    with pytest.raises(NodeError, match=r"pip install 'mfd\[lan\]'.*without --lan"):
        async with node(tmp_path, 1, lan=True):
            pass


async def test_without_an_address_there_is_nothing_to_announce() -> None:
    """Rules: M-32"""
    lost = Discovery("x", keys(1).public_key, ["peer.example:7000"], print, host=HERE)
    with pytest.raises(DiscoveryError, match="--advertise"):
        async with lost:
            pass
