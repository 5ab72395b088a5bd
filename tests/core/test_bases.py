"""Differences build upon older content of the same walker that both custodians hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfd.core.bases import common, named, remember
from mfd.core.config import Config
from mfd.core.custody import Version, Walker, open_identity
from mfd.core.messages import Kind, decode_message, encode_message
from mfd.packet.manifest import sign_manifest
from mfd.packet.objects import pack_layer, unpack_layer
from mfd.packet.task import LayerRef
from mfd.sim.keys import SimKey, sim_verify
from mfd.sim.standin import StandIn
from tests.sim.worlds import arrived, inject, reports, walker_for, world_of

KEY = SimKey(b"creator")
FLOATS = 4_000


def digest(letter: str) -> bytes:
    return letter.encode() * 32


def versions(*contents: str) -> tuple[Walker, list[Version]]:
    """A walker, and versions of it: a letter for each of its layers' content."""
    world = world_of([("a", "b")], "ab")
    birth = walker_for(world, "a", layers=len(contents[0]), floats=10)
    event = birth.event
    first = Version.open(event.manifest, event.signature, sim_verify)
    made = []
    for number, letters in enumerate(contents):
        refs = tuple(
            LayerRef(i, ref.name, digest(letter), ref.raw_bytes)
            for i, (ref, letter) in enumerate(zip(first.manifest.layers, letters, strict=True))
        )
        manifest = replace(first.manifest, seq=number + 1, layers=refs)
        record, signature = sign_manifest(manifest, KEY)
        made.append(Version(record, signature, manifest))
    walker = Walker(open_identity(event.genesis, event.plan, sim_verify))
    return walker, made


def letters_of(bases: list[list[bytes]]) -> list[str]:
    return ["".join(chr(base[0]) for base in row) for row in bases]


def test_the_newest_older_content_of_a_layer_is_named_first() -> None:
    """Rules: C-35"""
    walker, made = versions("abc", "dbe", "fbg", "xyz")
    for walker.version in made[:3]:
        remember(walker, 2)
    here = {digest(letter) for letter in "abcdefg"}
    lacks = [digest(letter) for letter in "xz"]
    assert letters_of(named(walker, made[3], lacks, here)) == ["fda", "gec"]
    assert letters_of(named(walker, made[3], lacks, here - {digest("f")})) == ["da", "gec"]
    assert named(walker, made[3], lacks, set()) == []


def test_no_more_than_four_are_named() -> None:
    """Rules: C-35"""
    walker, made = versions("a", "b", "c", "d", "e", "f")
    for walker.version in made[:5]:
        remember(walker, 9)
    here = {digest(letter) for letter in "abcde"}
    assert letters_of(named(walker, made[5], [digest("f")], here)) == ["edcb"]


def test_only_the_newest_of_earlier_versions_are_kept() -> None:
    """Rules: C-36"""
    walker, made = versions("a", "b", "c", "d")
    for walker.version in made:
        remember(walker, 2)
        remember(walker, 2)  # saved again, unchanged
    assert [v.manifest.seq for v in walker.earlier] == [4, 3, 2]
    remember(walker, 0)
    assert [v.manifest.seq for v in walker.earlier] == [4]


def test_a_sender_uses_only_what_its_own_lineage_left() -> None:
    """A stranger's object that is named, or one of another size, is no base.

    Rules: C-36
    """
    walker, made = versions("ab", "cb")
    for walker.version in made:
        remember(walker, 2)
    objects = made[1].objects
    told = [[digest("s"), digest("a")], []]
    assert common(walker, objects, [digest("c"), digest("b")], told) == {digest("c"): digest("a")}
    assert common(walker, objects, [digest("c")], [[digest("s")]]) == {}
    assert common(walker, {**objects, digest("c"): 1}, [digest("c")], told[:1]) == {}
    assert common(walker, objects, [digest("x")], [[digest("s")]]) == {}  # neither is known here
    assert common(walker, objects, [digest("c")], [[digest("c")]]) == {}  # nor is it its own base


def test_an_accept_without_bases_is_as_it_always_was() -> None:
    """Rules: C-35"""
    ref, nonce = bytes(32), bytes(16)
    short, full = (
        encode_message(Kind.ACCEPT, (ref, nonce, [ref], told), network="n", signer=KEY)
        for told in ([], [[ref]])
    )
    assert len(full) == len(short) + 2 + 34
    assert decode_message(short, network="n", verify=sim_verify).body == (ref, nonce, [ref], [])


class Gentle(StandIn):
    """Small steps, as training makes them: noise of a ten-thousandth of the weights."""

    @staticmethod
    def _changed(task, ref, read):
        if task.siblings:
            return StandIn._changed(task, ref, read)
        noise = np.random.default_rng([task.seed, ref.index])
        tensors = unpack_layer(read(ref.digest))
        steps = {n: 1 + 1e-4 * noise.standard_normal(t.shape) for n, t in tensors.items()}
        return pack_layer({n: (t.array() * steps[n]).astype("f4") for n, t in tensors.items()})


@pytest.mark.parametrize("mode", ["snake", "fedavg"])
def test_walkers_travel_in_fewer_bytes_and_learn_the_same(mode: str) -> None:
    """Rules: C-35, C-36, T-28"""
    carried, ends = [], []
    for keep in (0, 2):
        world = world_of([("a", "b"), ("b", "c")], "abc", config=Config(bases_kept=keep))
        for host in world.hosts.values():
            host.learner = Gentle()
        fields = {"mode": mode, "min_holders": 3, "laps": 3}
        birth = walker_for(world, "a", layers=4, floats=FLOATS, **fields)
        inject(world, "a", birth)
        home = world.hosts["a"]
        assert world.run(until=arrived(home), seconds=300)
        carried.append(sum(host.sent_bytes["bulk"] for host in world.hosts.values()))
        version = home.peer.version(birth.walker)
        ends.append([ref.digest for ref in version.manifest.layers])
        assert not any(reports(host, "refused") for host in world.hosts.values())
    assert ends[0] == ends[1]
    assert carried[1] < 0.8 * carried[0], carried
