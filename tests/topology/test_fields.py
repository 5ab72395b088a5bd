"""Loosely typed tables: numbers and flags as text, holdings as text, quotes of DOT."""

from __future__ import annotations

import pytest

from mfd.topology import Edge, Node, TopologyError
from mfd.topology.fields import read_edge, read_node, told


def test_numbers_and_flags_may_be_text() -> None:
    known = {"address": '"h:1"', "custodian": "true", "memory_bytes": "1e9", "speed": '"2"'}
    assert read_node(known, "x") == Node("h:1", custodian=True, memory_bytes=10**9, speed=2.0)
    assert not read_node({"custodian": "false"}, "x").custodian
    assert read_edge("a", "b", {"latency_us": "5"}, "x") == Edge("a", "b", latency_us=5)


def test_holdings_may_be_text() -> None:
    node = read_node({"hold": "a/b = npz:x?y=1&z=2; c=idx:d;"}, "x")
    assert node.hold == {"a/b": "npz:x?y=1&z=2", "c": "idx:d"}
    assert read_node({"hold": ""}, "x").hold == {}
    for bad in ("a", "=x", "a=", 3, ["a"]):
        with pytest.raises(TopologyError, match="node n: hold must say"):
            read_node({"hold": bad}, "node n")


def test_the_topology_zoos_speed_counts_unless_ours_is_given() -> None:
    assert read_edge("a", "b", {"LinkSpeedRaw": 1e9}, "x").bandwidth_bps == 10**9
    both = {"LinkSpeedRaw": 1e9, "bandwidth_bps": 5}
    assert read_edge("a", "b", both, "x").bandwidth_bps == 5


def test_only_what_differs_from_the_default_is_told() -> None:
    assert told(Node()) == {}
    assert told(Edge("a", "b", loss=0.5)) == {"a": "a", "b": "b", "loss": 0.5}


def test_memory_is_told_as_people_write_it() -> None:
    assert read_node({"memory": "2GiB"}, "x").memory_bytes == 2 << 30
    assert read_node({"memory": '"512 KiB"'}, "x", strict=True).memory_bytes == 512 << 10
    assert read_node({"memory": 2_000_000}, "x").memory_bytes == 2_000_000
    with pytest.raises(TopologyError, match=r"x: memory: 77 is 77 bytes, too little"):
        read_node({"memory": 77}, "x")
    assert read_node({"whole": "64MiB"}, "x", strict=True).whole_bytes == 64 << 20
    assert read_node({"whole_bytes": 99}, "x", strict=True).whole_bytes == 99
    for wrong in (True, "much", [1], -5):
        with pytest.raises(TopologyError, match=r"x: memory: .* is no amount of memory"):
            read_node({"memory": wrong}, "x")
