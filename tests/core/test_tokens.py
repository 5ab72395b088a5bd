"""Tokens: who is admitted may announce; nobody else takes room in anybody's lists."""

from __future__ import annotations

from dataclasses import replace

import msgpack
import pytest

from mfd.core.config import Config
from mfd.core.events import CommandFailed, Held, Restored
from mfd.core.frames import Update
from mfd.core.peer import Peer
from mfd.core.routing import Routes
from mfd.core.sources import MINUTE_US, Record, open_record, seal_record
from mfd.core.tokens import TOKEN_BYTES, Token, issue, parse_token
from mfd.packet.errors import PacketError
from mfd.packet.signing import seal
from mfd.sim.keys import SimKey, sim_verify

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
