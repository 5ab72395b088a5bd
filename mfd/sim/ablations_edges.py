"""The rules that are taken away at the edges: who may enter, how much, how far, in which parts.

Rules of this file: as in `ablation`; what a peer does in place of a rule stands in
`breaking_edges`.
"""

from __future__ import annotations

import mfd.core.errands as errands_module
import mfd.core.exchange as exchange_module
import mfd.core.handover as handover_module
import mfd.core.routing as routing_module
import mfd.core.walkers as walkers_module
from mfd.core.antientropy import AntiEntropy
from mfd.core.custody import Role
from mfd.core.detours import Detours
from mfd.core.far import FarLinks
from mfd.core.gossip import Gossip
from mfd.core.lease import Leases
from mfd.core.membership import Membership
from mfd.core.pace import Pace
from mfd.core.rates import Rates
from mfd.core.reception import Reception
from mfd.core.routing import Routes
from mfd.core.tidings import Tidings
from mfd.core.transfer import Circuits
from mfd.core.walkers import Walkers
from mfd.sim import breaking, breaking_edges
from mfd.sim import liars as liars_module
from mfd.sim import scenario as scenario_module
from mfd.sim.ablation import Ablation
from mfd.sim.disk import Disk
from mfd.sim.standin import StandIn

__all__ = ["EDGES"]

MEMBERS = {"graph": ("ring", 6), "members": True, "holders": 3, "walkers": 0}
FAR = {
    "graph": ("small-world", 10),
    "open": True,
    "walkers": 4,
    "holders": 6,
    "laps": 2,
    "seconds": 4.0,
    "config": {
        "active_target": 2,
        "active_max": 3,
        "far_hops": 2,
        "far_idle_us": 1_000_000,
        "far_links_max": 1,
    },
}

EDGES: tuple[Ablation, ...] = (
    Ablation(
        "whoever announces is a holder",
        ("S17",),
        ((routing_module, "open_member_record", breaking_edges.anybody),),
        {**MEMBERS, "strangers": 1, "seconds": 3.0},
    ),
    Ablation(
        "a revocation does not reach what is believed already",
        ("S17",),
        ((Routes, "expel", breaking.nothing),),
        {**MEMBERS, "revoked": 1, "seconds": 8.0},
    ),
    Ablation(
        "a restart forgets who was revoked",
        ("S17",),
        ((Tidings, "restore", breaking.nothing),),
        {**MEMBERS, "revoked": 1, "seconds": 20.0, "faults": "power@12s-15s"},
        around=((AntiEntropy, "_compare", breaking_edges.early),),  # else neighbours tell it again
    ),
    Ablation(
        "a neighbour may send as much as it likes",
        ("R5",),
        ((Rates, "take", lambda *_: True),),
        {
            "graph": ("line", 3),
            "faults": "liars=34%",
            "seconds": 8.0,
            "walkers": 0,
            "config": {"frame_rates": 0.05, "names_max": 24},
        },
        around=(
            (liars_module, "BEAT_US", {"flood": 10_000}),
            (scenario_module, "HABITS", ("flood", "flood")),
        ),
    ),
    Ablation(
        "searches keep no pace",
        ("R6",),
        ((Pace, "in_turn", breaking_edges.at_once),),
        {
            "graph": ("line", 6),
            "holders": 5,
            "walkers": 6,
            "laps": 4,
            "seconds": 7.0,
            "config": {"sources_per_name": 1, "seek_every_us": 60_000_000},
        },
        seeds=(3, 1, 2, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "a way that has failed is the next one again",
        ("L1",),
        ((Detours, "failed", breaking.nothing),),
        {"graph": ("small-world", 8), "holders": 4, "seconds": 1.0, "calm": 90.0},
        around=((Circuits, "_why_not", breaking_edges.shy),),
        # with some seeds none but relays that refuse lie around a holder: nobody reaches that one
        seeds=(2,),
    ),
    Ablation(
        "a neighbour may open as many circuits as it likes",
        ("R7",),
        ((Circuits, "_why_not", breaking_edges.at_will),),
        {
            "graph": ("line", 3),
            "walkers": 3,
            "holders": 3,
            "laps": 2,
            "seconds": 4.0,
            "config": {"opens_per_s": 1, "opens_burst": 2},
        },
    ),
    Ablation(
        "a neighbour may tell as many rumours as it likes",
        ("R7",),
        ((Gossip, "on_rumour", breaking_edges.all_ears),),
        {
            "graph": ("line", 3),
            "walkers": 3,
            "holders": 3,
            "laps": 2,
            "seconds": 4.0,
            "config": {"rumours_per_s": 1, "rumours_burst": 2},
        },
        around=((Leases, "own", breaking_edges.chatty),),
    ),
    Ablation(
        "a neighbour may send as many records of others as it likes",
        ("R7",),
        ((Membership, "_from_neighbour", breaking_edges.sociable),),
        {
            "graph": ("clique", 6),
            "open": True,
            "walkers": 0,
            "seconds": 8.0,
            "config": {
                "active_target": 2,
                "active_max": 3,
                "joins_per_s": 1,
                "joins_burst": 2,
                "shuffle_us": 200_000,
            },
        },
    ),
    Ablation(
        "far links are never ended",
        ("R1",),
        ((FarLinks, "_sweep", breaking.nothing),),
        {**FAR, "seconds": 8.0},
        seeds=(3, 1, 2, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "far links have no limit",
        ("R1",),
        ((FarLinks, "_count", lambda *_, **__: 0),),
        FAR,
        seeds=(3, 1, 2, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "a far peer is a neighbour",
        ("S12",),
        ((FarLinks, "_begin", breaking_edges.befriend),),
        FAR,
        seeds=(3, 1, 2, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "a peer that takes only parts takes the whole",
        ("S18",),
        ((Reception, "_why_parts", breaking.nothing),),
        {"graph": ("clique", 5), "holders": 4, "small": 2, "walkers": 2, "seconds": 6.0},
    ),
    Ablation(
        "what a shadow keeps goes after a while",
        ("S2",),
        ((walkers_module, "SPARE", (Role.NONE, Role.RELEASED, Role.SHADOW)),),
        {
            "graph": ("clique", 6),
            "holders": 4,
            "laps": 6,
            "faults": "amnesia=12",
            "config": {"released_keep_us": 1_000_000},
        },
    ),
    Ablation(
        "a difference builds upon whatever was named",
        ("S19",),
        (
            (handover_module, "common", breaking_edges.first_named),
            (errands_module, "common", breaking_edges.first_named),
        ),
        {"graph": ("clique", 4), "holders": 3, "walkers": 3, "laps": 2, "seconds": 4.0},
        around=((Walkers, "bases", breaking_edges.curious),),
    ),
    Ablation(
        "differences go on though their base has gone",
        ("L1",),
        ((exchange_module, "_resume_point", breaking_edges.upon_all_the_same),),
        {"graph": ("clique", 3), "holders": 3, "laps": 4, "seconds": 1.0, "calm": 60.0},
        around=(
            (Disk, "keep", breaking_edges.baseless),
            (StandIn, "_changed", staticmethod(breaking_edges.hardly)),
        ),
    ),
)
