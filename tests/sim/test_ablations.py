"""Each checker bites: with one rule of the core taken away it must say so, and only then."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from mfd.core.config import Config
from mfd.core.effects import Send
from mfd.core.events import LinkUp, Received
from mfd.core.frames import Class, Open, Ping, Via, encode_frame
from mfd.sim import ablations
from mfd.sim.ablations import ABLATIONS, Ablation
from mfd.sim.checks import Violation
from mfd.sim.checks.circuits import CircuitFlow
from mfd.sim.checks.custody import Custody
from mfd.sim.checks.liveness import Recovery
from mfd.sim.checks.members import Members
from mfd.sim.running import run
from mfd.sim.scenario import stage
from mfd.sim.world import World

CHECKS = Path(ablations.__file__).parent / "checks"
SHOWN_HERE = {"S14", "L5", "R2", "R3"}  # by the tests below: no rule of the core to take away


def verdict(ablation: Ablation, seed: int) -> str:
    scenario = ablation.scenario(seed)
    if ablation.caught_by == ("D1",):
        return "" if run(scenario).trace == run(scenario).trace else "D1: the traces differ"
    return run(scenario).violation


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda a: a.name.replace(" ", "-"))
def test_a_missing_rule_is_noticed(ablation: Ablation) -> None:
    for seed in ablation.seeds:
        with ablation.broken():
            said = verdict(ablation, seed)
        if said:
            break
    assert said.partition(":")[0] in ablation.caught_by, said
    with ablation.broken(really=False):
        assert verdict(ablation, seed) == "", "the scene is not sound without the ablation"


def test_every_invariant_that_is_checked_is_shown_to_bite() -> None:
    texts = [path.read_text() for path in CHECKS.glob("*.py")]
    checked = {name for text in texts for name in re.findall(r'_violation\(\s*"(\w+)"', text)}
    shown = {name for ablation in ABLATIONS for name in ablation.caught_by} | SHOWN_HERE
    assert checked - shown == set()
    assert {
        "S1",
        "S2",
        "S3",
        "S4",
        "S5",
        "S6",
        "S7",
        "S8",
        "S9",
        "S10",
        "S11",
        "S12",
        "S13",
        "L5",
        "L6",
        "R5",
        "R6",
        "R7",
    } <= checked


def lonely() -> tuple[World, CircuitFlow]:
    world = World(1)
    world.add("a")
    world.add("b")
    world.link("a", "b")
    flow = CircuitFlow(world, set())
    world.observers.append(flow)
    world.run(seconds=1)
    return world, flow


def test_an_answer_to_a_link_that_does_not_stand() -> None:
    world, flow = lonely()
    host = world.hosts["a"]
    stray = Received(99, encode_frame(Ping(1)))
    flow(host, stray, [])
    with pytest.raises(Violation, match="S14: a answers link 99"):
        flow(host, stray, [Send(99, "control", (encode_frame(Ping(1)),))])


def test_a_link_that_changes_neighbours() -> None:
    world, flow = lonely()
    host, other = world.hosts["a"], world.hosts["b"].key.public_key
    flow(host, LinkUp(50, other, "b", True), [])
    with pytest.raises(Violation, match="S14: link 50 of a changed neighbours"):
        flow(host, LinkUp(50, bytes(32), "b", True), [])


def test_a_peer_that_is_its_own_neighbour() -> None:
    world, _ = lonely()
    host = world.hosts["a"]
    members = Members(world, set())
    world.observers.append(members)
    world.run(seconds=10)
    members.look(host)
    host.peer.handle(LinkUp(50, host.key.public_key, "a", True), world.now_us)
    with pytest.raises(Violation, match="S12: a is its own neighbour"):
        members.look(host)


def test_a_circuit_that_goes_on_further_away_than_it_came() -> None:
    world, flow = lonely()
    host = world.hosts["a"]
    link = next(iter(world.wires.links))

    def opened(metric: int, hops: int) -> bytes:
        via = Via("n", bytes(32), 5, metric)
        return encode_frame(Open(7, bytes(32), via, (), bytes(16), hops, Class.THIN, b""))

    came = Received(link, opened(300, 1))
    flow(host, came, [Send(link, "control", (opened(200, 2),))])
    for metric, hops, text in ((300, 2, r"passes a circuit on"), (200, 3, "counts hop 3 after 1")):
        with pytest.raises(Violation, match=f"S10: a {text}"):
            flow(host, came, [Send(link, "control", (opened(metric, hops),))])


def test_a_circuit_that_goes_in_circles_along_a_way_that_was_found() -> None:
    world, flow = lonely()
    host = world.hosts["a"]
    link = next(iter(world.wires.links))
    marks = (b"1" * 8, b"2" * 8)

    def opened(route: tuple[bytes, ...], hops: int) -> bytes:
        via = Via("n", bytes(32), 0, (1 << 32) - 1)
        return encode_frame(Open(7, bytes(32), via, route, bytes(16), hops, Class.THIN, b""))

    came = Received(link, opened(marks, 1))
    flow(host, came, [Send(link, "control", (opened(marks[1:], 2),))])
    for route in (marks, ()):
        with pytest.raises(Violation, match="S10: a passes a circuit on"):
            flow(host, came, [Send(link, "control", (opened(route, 2),))])


def quiet() -> Recovery:
    world, _ = lonely()
    return Recovery(world, Custody(world), {"a", "b"}, {}, [])


def test_control_that_costs_too_much() -> None:
    judge = quiet()
    judge.measure()
    judge.world.run(seconds=10)
    assert 0 < judge.check_control() < 20  # one ping or pong in 2 s
    judge.world.hosts["a"].sent_bytes["control"] += 100_000_000
    with pytest.raises(Violation, match="R2: a sends"):
        judge.check_control()


def test_bytes_on_a_disk_that_no_row_names() -> None:
    judge = quiet()
    judge.check_disks()
    judge.world.hosts["b"].disk.objects[bytes(32)] = bytes(2 << 20)
    with pytest.raises(Violation, match="R3: b keeps 2097152 bytes"):
        judge.check_disks()


def apart(*, fenced: bool) -> Recovery:
    """A world whose two halves have both gone on with a walker, and hang together again."""
    ablation = next(a for a in ABLATIONS if a.name == "a fenced owner goes on")
    with ablation.broken(really=not fenced):
        staged = stage(ablation.scenario(8))
        world, custody = staged.world, Custody(staged.world)
        world.observers.append(lambda host, event, effects: custody.read([host]))
        world.run(seconds=2)
        staged.trouble.begin()
        world.run(seconds=14)
        judge = Recovery(world, custody, staged.trouble.heal(), staged.births, staged.holders)
        for _ in range(12):
            world.run(seconds=3)
            if not fenced:
                judge.check_forks()
    return judge


def test_two_branches_of_a_walker_that_both_go_on() -> None:
    with pytest.raises(Violation, match=r"L5: walker \w+ is owned by"):
        apart(fenced=False)
    apart(fenced=True).check_forks()


def test_no_ablation_is_left_in_force() -> None:
    before = {
        id(owner.__dict__[name]) for a in ABLATIONS for owner, name, _ in (*a.patches, *a.around)
    }
    for ablation in ABLATIONS:
        with ablation.broken():
            pass
    after = {
        id(owner.__dict__[name]) for a in ABLATIONS for owner, name, _ in (*a.patches, *a.around)
    }
    assert before == after
    assert Config().lease_us == 60_000_000


def test_two_liars_do_not_hide_that_a_walker_is_lost() -> None:
    """Liars count as lost disks only for walkers that they have had in their hands."""
    ablation = next(a for a in ABLATIONS if a.name == "a grantor keeps no copy")
    lying = replace(ablation, scene={**ablation.scene, "faults": "amnesia=12,liars=2"})
    with lying.broken():
        outcome = run(lying.scenario(3))
    assert outcome.liars == 2
    assert outcome.violation.startswith("S2:")
    with lying.broken(really=False):
        assert run(lying.scenario(3)).violation == ""
