"""Which of two branches of a walker stays, and who may begin the next epoch.

Rules of this file: functions of a row and of certificates; none of them acts. The newest
certificate known is `walker.certificates[0]`. A keeper that it does not name is a stray; behind the
two newest its row keeps the certificate that still entitles it.
Source: spec/custody.md, section "Leases".
"""

from __future__ import annotations

from collections.abc import Sequence

from mfd.core.certificates import Certificate, follows, open_certificate
from mfd.core.custody import Role, Walker
from mfd.packet.objects import object_digest
from mfd.packet.signing import Verifier

__all__ = ["KEEPERS", "claim", "is_stray", "newest", "next_epoch", "proves", "rank", "shown"]

KEEPERS = (Role.SHADOW, Role.FENCED)  # they have a whole copy and own nothing


def newest(walker: Walker, verify: Verifier) -> Certificate | None:
    """Return the newest certificate known here, opened."""
    return open_certificate(walker.certificates[0], verify) if walker.certificates else None


def is_stray(certificate: Certificate, me: bytes) -> bool:
    """Whether a keeper is not named by the newest certificate: nobody keeps it informed."""
    return me not in certificate.shadows


def rank(certificate: Certificate, me: bytes) -> int:
    """Return which turn is ours once the owner is silent: 1 is the first; strays come last."""
    shadows = certificate.shadows
    return (shadows.index(me) if me in shadows else len(shadows)) + 1


def claim(walker: Walker, me: bytes, verify: Verifier) -> bytes | None:
    """Return the newest certificate that entitles this peer to begin an epoch."""
    return _entitling(walker.certificates, me, verify)


def _entitling(records: Sequence[bytes], me: bytes, verify: Verifier) -> bytes | None:
    for record in records:
        certificate = open_certificate(record, verify)
        if me == certificate.target or me in certificate.shadows:
            return record
    return None


def proves(chain: Sequence[bytes], walker: Walker, verify: Verifier) -> bool:
    """Whether certificates are newer than what is known here and hang together.

    Raises: PacketError for certificates that do not verify.
    """
    first, *second = [open_certificate(record, verify) for record in chain]
    mine = newest(walker, verify)
    if mine is None or first.walker != walker.id or first.position <= walker.high_water:
        return False
    if walker.role is Role.OWN and first.epoch == mine.epoch:
        return False  # within its epoch an owner is only followed by whom it granted to
    if follows(first, mine, walker.certificates[0]):
        return True
    return any(follows(first, older, chain[1]) for older in second)


def shown(walker: Walker, chain: Sequence[bytes], me: bytes, verify: Verifier) -> tuple[bytes, ...]:
    """Return the certificates of a keeper once it was shown a chain that proves something newer.

    The two newest, for others to believe, and what entitles it where neither of them does.
    """
    first = open_certificate(chain[0], verify)
    own = walker.certificates
    linked = len(chain) > 1 and follows(first, open_certificate(chain[1], verify), chain[1])
    pair = (chain[0], chain[1] if linked else own[0])
    right = _entitling((*pair, *own), me, verify)
    return pair if right is None or right in pair else (*pair, right)


def next_epoch(
    walker: Walker, me: bytes, lease_us: int, verify: Verifier
) -> tuple[Certificate, bytes]:
    """Return the certificate by which an owner or a keeper begins the next epoch, and its previous.

    It names the shadows that would have had their turn later: they keep their copies and watch. A
    stray names nobody, since it has waited for all; who is left learns of it and is a stray itself.
    """
    before = newest(walker, verify)
    assert before is not None
    record: bytes | None = walker.certificates[0]
    later: tuple[bytes, ...] = ()
    if walker.role is Role.OWN:
        later = before.shadows[1:]  # the nearest is silent
    elif is_stray(before, me):
        record = claim(walker, me, verify)
    else:
        later = before.shadows[rank(before, me) :]
    assert record is not None, "who is not entitled does not watch"
    certificate = Certificate(
        walker=walker.id,
        epoch=(before.epoch[0] + 1, me),
        hop=0,
        revision=0,
        source=me,
        target=me,
        manifest=walker.version.digest if walker.version else b"",
        previous=object_digest(record),
        stored=b"",
        shadows=tuple(peer for peer in later if peer != me),
        released=(),
        nonce=b"",
        lease_us=lease_us,
    )
    return certificate, record
