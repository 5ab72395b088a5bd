"""Parts of a peer as its status shows them.

Rules of this file: pure functions from the tables to values.
"""

from __future__ import annotations

from mfd.core.custody import Role, Walker
from mfd.core.membership import Neighbour
from mfd.core.status import LinkStatus, WalkerStatus

__all__ = ["link_status", "must_be_found", "walker_status"]


def must_be_found(walker: Walker, me: bytes) -> bool:
    """Say whether somebody has to find this peer: as owner, shadow, next custodian or home."""
    if walker.role in (Role.OWN, Role.SHADOW) or walker.held is not None:
        return True
    return walker.plan.home == me and walker.role is Role.RELEASED


def link_status(link: int, neighbour: Neighbour, now_us: int) -> LinkStatus:
    """Show a link."""
    up = neighbour.up
    return LinkStatus(
        link=link,
        peer=up.peer.hex(),
        address=up.address,
        outbound=up.outbound,
        cost=up.cost,
        silent_us=now_us - neighbour.heard_us,
    )


def walker_status(walker: Walker) -> WalkerStatus:
    """Show a walker."""
    manifest = walker.version.manifest if walker.version else None
    return WalkerStatus(
        walker=walker.id.hex(),
        role=walker.role.value,
        activity=walker.activity,
        mode=walker.plan.mode,
        epoch=walker.high_water[0],
        hop=walker.high_water[2],
        seq=manifest.seq if manifest else 0,
        lap=manifest.progress.lap if manifest else 0,
        laps=walker.plan.laps,
        home=walker.plan.home.hex(),
    )
