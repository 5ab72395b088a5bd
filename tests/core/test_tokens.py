"""Tokens: who is admitted may announce; nobody else takes room in anybody's lists."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from mfd.core.config import Config
from mfd.core.events import CommandFailed, Held, Joined, Received, Restored
from mfd.core.frames import Update
from mfd.core.memberframes import Rumour, encode_member
from mfd.core.peer import Peer
from mfd.core.routing import Routes
from mfd.core.sources import MINUTE_US, Record, open_record, seal_record
from mfd.core.tidings import REVOCATION
from mfd.core.tokens import TOKEN_BYTES, Token, issue, open_revocation, parse_token, revoke
from mfd.packet.errors import PacketError
from mfd.packet.signing import seal
from mfd.sim.keys import SimKey, sim_verify
from tests.core.member_world import MemberWorld

NET, NAME = "campus", "digits/train"
ISSUER, MEMBER, STRANGER = (SimKey(word) for word in (b"issuer", b"member", b"stranger"))
TOKEN = issue(NET, MEMBER.public_key, 7, ISSUER)
GUARDED = Config(network=NET, issuers=frozenset({ISSUER.public_key}))


def record(token: Token | None, key: SimKey = MEMBER, seqno: int = 9) -> bytes:
    draft = Record(NAME, b"", seqno, 10, 60 * MINUTE_US, b"", b"\x14", 3, token)
    return seal_record(NET, draft, key).sealed


def routes(config: Config) -> Routes:
    key = SimKey(b"relay")
    made = Routes(key.public_key, config, signer=key, verify=sim_verify, boot=1)
    made.link_up(1, 100, 0)
    return made


def test_a_token_comes_back_from_text_and_record() -> None:
    """Rules: R-49, R-01"""
    assert parse_token(str(TOKEN)) == TOKEN
    assert len(str(TOKEN)) == 2 * TOKEN_BYTES
    opened = open_record(record(TOKEN), NET, sim_verify)
    assert (opened.token, opened.labels, opened.capacity) == (TOKEN, b"\x14", 3)
    assert open_record(record(None), NET, sim_verify).token is None
    for text in ("", "xy", "00" * 99, str(TOKEN) + "00"):
        with pytest.raises(ValueError, match="is not a token"):
            parse_token(text)
    with pytest.raises(ValueError, match="serial"):
        issue(NET, MEMBER.public_key, 1 << 32, ISSUER)


@pytest.mark.parametrize(
    "token",
    [
        None,
        issue("elsewhere", MEMBER.public_key, 7, ISSUER),
        issue(NET, STRANGER.public_key, 7, ISSUER),
        issue(NET, MEMBER.public_key, 7, STRANGER),
        issue(NET, MEMBER.public_key, 7, MEMBER),
        TOKEN._replace(serial=8),
        TOKEN._replace(issuer=STRANGER.public_key),
        TOKEN._replace(signature=bytes(64)),
    ],
    ids=["none", "network", "member", "issuer", "self", "serial", "key", "signature"],
)
def test_a_holder_that_was_not_admitted_takes_no_room(token: Token | None) -> None:
    """Rules: R-49"""
    relay = routes(GUARDED)
    relay.update(1, [[record(token), 5, 5, 1]], 0)
    assert relay.holders(NAME) == []
    assert relay.refused["unsigned"] == 1
    assert not [frame for _, frame in relay.outgoing(10**6) if isinstance(frame, Update)]
    relay.update(1, [[record(TOKEN, seqno=10), 5, 5, 1]], 0)
    assert [source.holder for source in relay.holders(NAME)] == [MEMBER.public_key]
    free = routes(Config(network=NET))
    free.update(1, [[record(token), 5, 5, 1]], 0)
    assert len(free.holders(NAME)) == 1, "who has named no issuers does not look"


@pytest.mark.parametrize(
    "rest",
    [
        [[]],
        [[bytes(32), bytes(64)]],
        [[bytes(31), bytes(64), 1]],
        [[bytes(32), bytes(63), 1]],
        [[bytes(32), bytes(64), -1]],
        [[bytes(32), bytes(64), 1 << 32]],
        [[bytes(32), bytes(64), True]],
        [[bytes(32), bytes(64), 1], 3],
        [[bytes(32), bytes(64), 1], b"\x14"],
        [list(TOKEN), list(TOKEN)],
    ],
)
def test_a_record_with_anything_else_is_none(rest: list[object]) -> None:
    """Rules: R-01"""
    sealed = seal("mfd.src.v1", msgpack.packb([NET, NAME, 9, 10, 60, *rest]), MEMBER)
    with pytest.raises(PacketError):
        open_record(sealed, NET, sim_verify)


def test_members_announce_with_their_token_and_others_are_told() -> None:
    """Rules: R-50"""

    def peer(config: Config) -> Peer:
        made = Peer(signer=MEMBER, verify=sim_verify, config=config, seed=b"x")
        made.handle(Restored(1), 0)
        return made

    for token in (None, issue(NET, STRANGER.public_key, 1, ISSUER)):
        with pytest.raises(CommandFailed, match="token"):
            peer(replace(GUARDED, token=token)).handle(Held(NAME, 10), 0)
    member = peer(replace(GUARDED, token=TOKEN))
    member.handle(Held(NAME, 10), 0)
    relay = routes(GUARDED)
    member._routes.link_up(1, 100, 0)
    for _, frame in member._routes.outgoing(10**6):
        relay.update(1, frame.body, 0)
    assert {s.holder for s in relay.holders(NAME)} == {MEMBER.public_key}
    proof = member._routes.proof(0)
    assert relay.open(proof.sealed) == proof, "its own name too, for who seeks it"


def guarded(count: int) -> MemberWorld:
    """Peers in a row whose owners name one issuer; the last is a member that holds data."""
    config = replace(GUARDED, open_network=False)
    world = MemberWorld(1, config)
    for number in range(count):
        box = world.add(config=config)
        if number == count - 1:
            token = issue(NET, box.key.public_key, 7, ISSUER)
            world.start(box, replace(config, token=token))
        world.run(rounds=1)
        if number:
            world.happen(box, Joined(world.boxes[number - 1].address))
    world.run(seconds=1)
    world.happen(world.boxes[count - 1], Held(NAME, 10))
    world.run(seconds=2)
    return world


def knowing(world: MemberWorld) -> set[int]:
    """Who knows the last as a holder, but itself."""
    last = world.boxes[len(world.boxes) - 1]
    return {
        box.name
        for box in world.live()
        if box is not last and last.key.public_key in {s.holder for s in box.peer._holders([NAME])}
    }


def test_a_revocation_is_heard_everywhere_and_expels_a_holder() -> None:
    """Rules: R-51"""
    world = guarded(5)
    assert knowing(world) == {0, 1, 2, 3}
    last = world.boxes[4].key.public_key
    first = world.boxes[0]
    for serial, left in ((6, {0, 1, 2, 3}), (7, set())):  # it has the seventh
        world.kill(first)
        world.run(rounds=2)
        world.start(first, replace(GUARDED, revoked=(revoke(NET, last, serial, ISSUER),)))
        world.run(rounds=1)
        world.wire(first, world.boxes[1])
        world.run(seconds=3)
        assert knowing(world) == left
    told = [r for b in world.live() for r in b.reports if r.kind == "revoked"]
    assert {r.fields["peer"] for r in told} == {last.hex()}
    world.happen(world.boxes[4], Held(NAME, 11))  # a new record with the same token
    world.run(seconds=3)
    assert knowing(world) == set(), "for good"


def test_revocations_by_nobody_in_particular_change_nothing() -> None:
    """Rules: R-51"""
    world = guarded(3)
    last = world.boxes[2].key.public_key
    before = len(world.boxes[1].peer.members.gossip.held)
    link = next(n for n, (other, _) in world.boxes[1].links.items() if other.name == 0)
    stranger = Rumour(REVOCATION, 0, 0, bytes(8), revoke(NET, last, 99, STRANGER))
    world.happen(world.boxes[1], Received(link, encode_member(stranger)))
    world.run(seconds=1)
    assert knowing(world) == {0, 1}
    assert len(world.boxes[1].peer.members.gossip.held) == before, "it is not passed on"
    assert link in world.boxes[1].links
    world.boxes[1].peer.members.tidings.revoke([b"x", stranger.payload])
    assert world.boxes[1].peer.status().counters["revocations_refused"] == 2
    bent = revoke(NET, last, 7, ISSUER)[:-1] + b"\x01"
    world.happen(
        world.boxes[1], Received(link, encode_member(Rumour(REVOCATION, 0, 0, bytes(8), bent)))
    )
    world.run(rounds=3)
    assert link not in world.boxes[1].links, "no honest neighbour passes that on"
    assert 1 in knowing(world)


def test_a_revocation_is_that_of_one_issuer_member_network_and_serial() -> None:
    """Rules: R-51, R-49"""
    raw = revoke(NET, MEMBER.public_key, 7, ISSUER)
    assert open_revocation(raw, NET, sim_verify) == (ISSUER.public_key, MEMBER.public_key, 7)
    assert open_revocation(raw, "elsewhere", sim_verify) is None
    for wrong in (b"", raw[:-1], raw + b"x", bytes(len(raw)), bytes(32) + raw[32:]):
        assert open_revocation(wrong, NET, sim_verify) is None
    with pytest.raises(ValueError, match="serial"):
        revoke(NET, MEMBER.public_key, -1, ISSUER)
    relay = routes(GUARDED)
    relay.update(1, [[record(TOKEN), 5, 5, 1]], 0)
    relay.void = {(ISSUER.public_key, MEMBER.public_key): 7}
    relay.expel(MEMBER.public_key, 0)
    assert relay.holders(NAME) == []
    relay.update(1, [[record(TOKEN, seqno=10), 5, 5, 1]], 0)
    assert relay.holders(NAME) == []
    newer = issue(NET, MEMBER.public_key, 8, ISSUER)
    relay.update(1, [[record(newer, seqno=11), 5, 5, 1]], 0)
    assert len(relay.holders(NAME)) == 1, "it was admitted anew"
