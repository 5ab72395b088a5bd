"""Peers in processes of their own that know one address: they find each other, and again."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mfd.cli.client import Client
from mfd.cli.errors import CommandError
from mfd.cli.islands import Seen, islands, sentence, survey
from mfd.cli.main import main
from tests.cli.conftest import RunningPeer

Start = Callable[..., RunningPeer]
Json = dict[str, Any]


def wait_until(peer: RunningPeer, condition: Callable[[Json], bool]) -> Json:
    """Look at a peer's status after each of its reports until it is as wanted."""
    client, last = Client(peer.api), 0
    for _ in range(200):
        told = client.get("status")
        if condition(told):
            return told
        last = int(client.get("reports", after=last, wait=20)["last"])
    raise AssertionError(f"never came true: {told}")


def neighbours(told: Json) -> set[str]:
    return {link["peer"] for link in told["links"] if link["active"]}


def test_five_that_know_one_address_find_each_other_and_heal(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules: M-09, M-10, M-13, M-22"""
    first = start()
    peers = [first, *(start("--join", first.address) for _ in range(4))]
    ids = [peer.told["peer"] for peer in peers]
    for peer in peers:
        wait_until(peer, lambda told: len(neighbours(told)) == 4)
    capsys.readouterr()
    assert main(["peers", "--all", "--api", peers[2].api]) == 0
    said = capsys.readouterr().out
    assert "1 island: all 5 peers reach each other" in said
    assert all(peer[:8] in said for peer in ids)

    peers[1].stop(signal.SIGKILL)
    for peer in (first, *peers[2:]):
        told = wait_until(peer, lambda told: ids[1] not in neighbours(told))
        assert neighbours(told) == set(ids) - {ids[1], told["peer"]}
        drops = [d for d in told["members"]["dropped"] if d["peer"] == ids[1]]
        assert drops[-1]["reason"]
        assert told["members"]["lost"] == 1
    assert main(["peers", "--api", first.api]) == 0
    said = capsys.readouterr().out
    assert "dropped, newest last" in said
    assert ids[1][:8] in said
    assert main(["status", "--api", first.api]) == 0
    said = capsys.readouterr().out
    assert "last dropped " + ids[1][:8] in said
    assert "mfd, open" in said


def test_a_restarted_peer_needs_no_address(start: Start, tmp_path: Path) -> None:
    """Rules: M-20, M-21"""
    first = start("--state", "one")
    second = start("--state", "two", "--join", first.address)
    wait_until(second, lambda told: len(neighbours(told)) == 1)
    assert second.stop() == 0
    kept = json.loads((tmp_path / "two" / "peers.json").read_text())
    assert kept == [[first.told["peer"], [first.address]]]
    again = start("--state", "two")
    wait_until(again, lambda told: neighbours(told) == {first.told["peer"]})


def test_an_address_where_nobody_listens_is_told(
    start: Start, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rules: M-22"""
    peer = start("--join", "127.0.0.1:9")
    wait_until(peer, lambda told: bool(told["members"]["unreachable"]))
    for verb in ("status", "peers"):
        assert main([verb, "--api", peer.api]) == 0
        assert "127.0.0.1:9: nobody listens there" in capsys.readouterr().out


def status(peer: str, links: str = "", known: str = "") -> Json:
    return {
        "peer": peer,
        "address": f"{peer}:1",
        "links": [{"peer": p, "reach": [f"{p}:1"], "active": p.islower()} for p in links],
        "members": {"known": [{"peer": p, "addresses": [f"{p}:1"]} for p in known]},
    }


def test_a_survey_finds_islands() -> None:
    network = {
        "a": status("a", "b", "cx"),
        "b": status("b", "a"),
        "c": status("c", "de", "a"),
        "d": status("d", "c"),
    }

    def ask(address: str) -> Json:
        if address[0] not in network:
            raise CommandError("nobody")
        return network[address[0]]

    found = survey(network["a"], ask)
    assert sorted(found) == ["a", "b", "c", "d", "e"]  # x: no link, no answer
    assert found["e"] == Seen("e", ["e:1"])
    parts = islands(found)
    assert parts == [["c", "d", "e"], ["a", "b"]]
    assert sentence(parts) == "2 islands: c, d, e; a, b"
    assert sentence(parts[:1]) == "1 island: all 3 peers reach each other"


def test_who_answers_at_an_address_must_be_the_peer_that_was_meant() -> None:
    found = survey(status("a", "b"), lambda address: status("z"))
    assert found["b"].answers is False
    assert "z" not in found
