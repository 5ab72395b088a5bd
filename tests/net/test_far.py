"""On real sockets: links to peers that are no neighbours, and one that is a member no more."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from mfd.core.config import Config
from mfd.core.tokens import issue, revoke
from mfd.net.driver import Node
from tests.net.travel import HOLD, key, new_walker, peer, pieces, wait_report, wait_route

RING = Config(
    open_network=True,
    active_target=2,
    active_max=2,
    outbound_min=1,
    far_hops=2,
    sources_per_name=8,
    promote_us=200_000,
    alone_us=50_000,
)
PEERS = 5
ISSUER = key(99)
GUARDED = Config(issuers=frozenset({ISSUER.public_key}))


def far_links(made: Node) -> set[str]:
    """Peers at the other ends of links that carry circuits alone."""
    status = made.status()
    return {link["peer"] for link in status["links"] if not link["active"]}


async def test_a_walker_takes_far_links_where_peers_have_few_neighbours(tmp_path: Path) -> None:
    """Rules: M-36, M-37"""
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(peer(tmp_path, number, RING, **HOLD))
            for number in range(1, PEERS + 1)
        ]
        for before, made in itertools.pairwise(nodes):
            made.join(before.join_line)
            await wait_report(made, "linked")
        for made in nodes:
            await wait_route(made, PEERS)
        home = nodes[0]
        walker, parts = new_walker(key(1), [2_000] * 2, laps=1, min_holders=PEERS)
        assert await home.inject(pieces(parts)) == walker
        arrived = await wait_report(home, "arrived")
        assert arrived["stops"] == PEERS
        dialled = sum(made.status()["counters"].get("far_dials", 0) for made in nodes)
        taken = sum(made.status()["counters"].get("far_links", 0) for made in nodes)
        assert dialled >= 1
        assert taken >= 2, "both ends count it"
        for made in nodes:
            active = {link["peer"] for link in made.status()["links"] if link["active"]}
            assert len(active) <= RING.active_max
            assert not active & far_links(made), "who is far is no neighbour"


def member(folder: Path, number: int, *void: bytes, **options: object) -> Node:
    """A peer whose owner has named the issuer, with a token of its own."""
    token = issue(GUARDED.network, key(number).public_key, 1, ISSUER)
    return peer(folder, number, replace(GUARDED, token=token, revoked=void), **options)


def holders(made: Node) -> set[str]:
    return {route["holder"] for route in made.status()["routes"] if route["name"][0] != "@"}


async def until(made: Node, known: set[str]) -> None:
    """Routes change by themselves: the loop is yielded to until they are these."""
    while holders(made) != known:
        await asyncio.sleep(0)


async def test_a_revoked_member_is_refused_and_stays_so_over_a_restart(tmp_path: Path) -> None:
    """Rules: R-49, R-51, R-52"""
    bad, good = (key(number).public_key.hex() for number in (3, 4))
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        enter = stack.enter_async_context
        relay = await enter(member(tmp_path, 2))
        there = await enter(member(tmp_path, 3, **HOLD))
        beyond = await enter(member(tmp_path, 4, **HOLD))
        stranger = await enter(peer(tmp_path, 5, **HOLD))
        relay.join(there.join_line)
        relay.join(stranger.join_line)
        beyond.join(there.join_line)
        await until(relay, {bad, good})
        void = revoke(GUARDED.network, key(3).public_key, 1, ISSUER)
        async with member(tmp_path, 1, void) as teller:
            teller.join(relay.join_line)
            told = await wait_report(relay, "revoked")
            assert told["peer"] == bad
            await until(relay, {good})
        await relay.stop()
        # the one at fault is now all that a restarted relay is linked to, and forgets its rumours
        await beyond.stop()
        await there.stop()
        relay = await enter(member(tmp_path, 2))
        there = await enter(member(tmp_path, 3, **HOLD))
        beyond = await enter(member(tmp_path, 4, **HOLD))
        beyond.join(there.join_line)
        await wait_route(there, 2)
        relay.join(there.join_line)
        await until(relay, {good})  # told in the same breath as what is held there
        status = relay.status()
        assert "revoked" not in {report["kind"] for report in relay.reports(after=told["n"])}
        assert status["counters"].get("rumours_heard", 0) == 0, "nobody has told it again"
