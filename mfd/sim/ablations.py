"""The rules that are taken away: routing, circuits, membership, custody; more in `ablations_edges`.

Rules of this file: as in `ablation`; what a peer does in place of a rule stands in `breaking`.
"""

from __future__ import annotations

import mfd.core.meeting as meeting_module
import mfd.core.peer as peer_module
from mfd.core import epochs, ways
from mfd.core.choice import Choice
from mfd.core.commits import Commits
from mfd.core.context import Dice
from mfd.core.flow import Flow
from mfd.core.gossip import Gossip
from mfd.core.handover import Handover
from mfd.core.lease import Leases
from mfd.core.liveness import Liveness
from mfd.core.peering import Peering
from mfd.core.presence import Presence
from mfd.core.reception import Reception
from mfd.core.recordbook import RecordBook
from mfd.core.routetable import RouteTable
from mfd.core.routing import Routes
from mfd.core.transfer import Circuits
from mfd.core.views import Views
from mfd.core.walkers import Walkers
from mfd.sim import breaking
from mfd.sim.ablation import Ablation, Patch
from mfd.sim.ablations_edges import EDGES
from mfd.sim.checks.routes import Routing

__all__ = ["ABLATIONS", "Ablation", "Patch"]

DEAF: tuple[Patch, ...] = ((Leases, "lapsed", lambda _, __: False),)
CUTS = {"graph": ("small-world", 14), "faults": "cut=6,half=3,crash=2"}
OPEN = {
    "graph": ("small-world", 14),
    "open": True,
    "walkers": 0,
    "seconds": 30.0,
    "config": {"active_target": 3, "active_max": 4},
}
WALK = {"graph": ("ring", 6), "walkers": 2, "laps": 2, "holders": 4}
PARTITION = {
    **WALK,
    "graph": ("clique", 6),
    "faults": "partition@3s-18s=0.5",
    "config": {"lease_us": 3_000_000},
}
SPLITS = {**PARTITION, "walkers": 4, "training": 1.0, "seconds": 40.0, "calm": 60.0}
HALVES = (
    "partition@2s-9s=0.5,partition@12s-18s=0.5",
    "partition@2s-20s=0.5,partition@22s-39s=0.5",
)

ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "the feasibility distance is not lowered on sending",
        ("S8", "S9"),
        ((RouteTable, "lower", breaking.nothing),),
        CUTS,
    ),
    Ablation(
        "whatever is nearest is selected, feasible or not",
        ("S8",),
        ((RouteTable, "feasible", lambda *_: True),),
        CUTS,
        around=((Routing, "_check_feasible", breaking.nothing),),  # S9 would speak first
    ),
    Ablation(
        "the feasibility distance goes with the last route",
        ("S8", "S9"),
        ((RouteTable, "_is_idle", breaking.idle_unbound),),
        CUTS,
    ),
    Ablation(
        "ties are broken by an order of each peer's own",
        ("L2",),
        ((RouteTable, "order", breaking.ties_by_self),),
        {
            "graph": ("grid", 20),
            "holders": 12,
            "walkers": 0,
            "seconds": 1.0,
            "calm": 30.0,
            "config": {"sources_per_name": 2},
        },
    ),
    Ablation(
        "pruning sets off requests",
        ("R4",),
        ((Routes, "_take_retraction", breaking.impatient),),
        {
            "graph": ("geometric", 16),
            "holders": 12,
            "faults": "leave=4,cut=4",
            "walkers": 0,
            "config": {"sources_per_name": 2},
        },
        seeds=(2, 1, 3, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "retractions are not sent",
        ("L2", "S9"),
        ((RouteTable, "updates", breaking.without_retractions),),
        {"graph": ("ring", 8), "faults": "kill=3", "seconds": 15.0, "calm": 60.0},
    ),
    Ablation(
        "records do not expire",
        ("S13",),
        ((Routes, "_sweep", breaking.never_expire),),
        {
            "graph": ("ring", 6),
            "faults": "cut=3",
            "seconds": 110.0,
            "walkers": 0,
            "config": {"record_valid_us": 60_000_000},
        },
        around=((Routes, "_sweep", breaking.announce_only_once),),
        seeds=(3, 1, 2, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "records are believed unsigned",
        ("S9",),
        ((Routes, "open", breaking.believe),),
        {"graph": ("clique", 8), "faults": "liars=50%", "seconds": 6.0},
    ),
    Ablation(
        "tables have no limit",
        ("R1",),
        ((RouteTable, "has_room", lambda *_: True),),
        {
            "graph": ("clique", 8),
            "faults": "liars=50%",
            "seconds": 6.0,
            "config": {"names_max": 24},
        },
    ),
    Ablation(
        "a relay promises no more than was promised to it",
        ("S10",),
        ((ways, "next_hop", breaking.same_promise),),
        {"graph": ("ring", 14), "walkers": 2, "holders": 4},
    ),
    Ablation(
        "credit is counted four times over",
        ("R1",),
        ((Circuits, "on_credit", breaking.generous),),
        {**WALK, "config": {"bulk_window_bytes": 512}},
    ),
    Ablation(
        "credit is never given back",
        ("L1", "L4"),
        ((Flow, "give_back", breaking.nothing),),
        {**WALK, "calm": 150.0, "seconds": 5.0, "config": {"bulk_window_bytes": 512}},
    ),
    Ablation(
        "no circuit is ever taken for stalled",
        ("L4",),
        ((Circuits, "_sweep", breaking.nothing),),
        {**WALK, "seconds": 60.0, "config": {"bulk_window_bytes": 512}},
        around=((Flow, "give_back", breaking.nothing),),
    ),
    Ablation(
        "silence ends no link",
        ("L1", "L2"),
        ((Liveness, "_look", breaking.nothing),),
        {
            "graph": ("small-world", 12),
            "holders": 10,
            "faults": "kill=6",
            "seconds": 20.0,
            "calm": 60.0,
        },
    ),
    Ablation(
        "whoever asks becomes a neighbour",
        ("S12",),
        ((Peering, "_admit", breaking.roomy),),
        OPEN,
    ),
    Ablation(
        "whoever has to make room is not told",
        ("S12",),
        ((Peering, "_disconnect", breaking.secretly),),
        OPEN,
    ),
    Ablation(
        "a neighbour stays in the passive view",
        ("S12",),
        ((Views, "activate", breaking.still_hoping),),
        OPEN,
    ),
    Ablation(
        "a rumour is not remembered",
        ("S13",),
        ((Gossip, "_remember", breaking.nothing),),
        {"graph": ("ring", 6), "walkers": 0, "seconds": 1.0, "calm": 30.0},
    ),
    Ablation(
        "rumours are not passed on",
        ("L3",),
        ((Gossip, "_push", breaking.nothing),),
        {"graph": ("ring", 6), "walkers": 0, "seconds": 1.0, "calm": 30.0},
    ),
    Ablation(
        "the record that comes last is the newest",
        ("S13",),
        ((RecordBook, "learn", breaking.any_seq),),
        {**OPEN, "faults": "crash=2", "seconds": 20.0},
        seeds=(2, 1, 3, 4, 5, 6, 7, 8),
    ),
    Ablation(
        "records of peers that have ended are passed on",
        ("S13",),
        ((RecordBook, "get", breaking.ended_too),),
        {**OPEN, "seconds": 100.0, "config": {"peer_record_valid_us": 60_000_000}},
        around=((Presence, "_renew", breaking.sign_once),),
    ),
    Ablation(
        "nobody looks for holders beyond the nearest",
        ("L1",),
        ((Choice, "seeks", lambda *_: False),),
        {
            "graph": ("tree", 24),
            "holders": 14,
            "seconds": 1.0,
            "calm": 150.0,
        },
    ),
    Ablation(
        "what was offered is owned once it is stored",
        ("S1",),
        ((Reception, "_say_first", breaking.promote), (Handover, "on_stored", breaking.nothing)),
        WALK,
    ),
    Ablation(
        "promises leave before the disk has answered",
        ("S4",),
        ((Walkers, "save", breaking.eager),),
        WALK,
    ),
    Ablation(
        "a grantor keeps no copy",
        ("S2",),
        ((Handover, "_granted", breaking.careless),),
        {**WALK, "graph": ("clique", 6), "faults": "amnesia=12", "laps": 6},
    ),
    Ablation(
        "a position is granted twice",
        ("S5",),
        ((Handover, "_granted", breaking.twice),),
        WALK,
    ),
    Ablation(
        "no high-water mark",
        ("S1", "S3", "S5"),
        (
            (Reception, "_why_not", breaking.forgetful_why_not),
            (Reception, "_came", breaking.without_mark(Reception._came)),
            (Reception, "on_grant", breaking.without_mark(Reception.on_grant)),
        ),
        PARTITION,
        around=(*DEAF, (Leases, "on_stale", breaking.nothing)),
        # with seed 1 the deaf owner is shown a fence, which is another rule's business: S11
        seeds=(2, 3, 4, 5, 6, 7, 8, 9),
    ),
    Ablation(
        "a fenced owner goes on",
        ("S11",),
        ((Leases, "_fence", breaking.nothing),),
        {
            **WALK,
            "graph": ("clique", 8),
            "faults": "partition@9s-15s=0.5",
            "training": 4.0,
            "walkers": 6,
            "holders": 8,
            "config": {"lease_us": 4_000_000},
        },
        around=DEAF,
        seeds=(8, 1, 2, 3, 4, 5, 6, 7),
    ),
    Ablation(
        "a copy that no certificate names is not watched",
        ("L1",),
        ((epochs, "claim", breaking.nothing),),
        {**SPLITS, "seconds": 24.0, "faults": f"{HALVES[0]},amnesia=3"},
        seeds=(10, 1, 2, 3, 4, 5, 6, 7),
    ),
    Ablation(
        "a fence is believed near the fork alone",
        ("S11", "L5"),
        ((epochs, "proves", breaking.near),),
        {**SPLITS, "faults": f"{HALVES[1]},crash=1", "config": {"lease_us": 2_000_000}},
        seeds=(7, 1, 2, 3, 4, 5, 6, 8),
    ),
    Ablation(
        "a restart remembers no walkers",
        ("S1", "S2", "S3", "S5", "S7", "L1"),
        ((Walkers, "restore", breaking.nothing),),
        {**WALK, "faults": "crash=6", "laps": 4, "calm": 120.0},
    ),
    Ablation("versions name no parents", ("S6",), ((Commits, "commit", breaking.orphans),), WALK),
    Ablation(
        "a custodian has favourites",
        ("L6",),
        ((Reception, "_why_not", breaking.favouring),),
        {
            "graph": ("clique", 4),
            "walkers": 4,
            "laps": 14,
            "holders": 4,
            "training": 0.1,
            "seconds": 10.0,
        },
    ),
    Ablation(
        "what was verified is verified again and again",
        ("R5",),
        ((Routes, "open", breaking.never_sure),),
        CUTS,
    ),
    Ablation(
        "versions are not numbered on",
        ("S7",),
        ((Commits, "commit", breaking.same_seq),),
        WALK,
    ),
    Ablation(
        "a merge tells only what its own walker has seen",
        ("S16",),
        ((meeting_module, "joined", breaking.first),),
        {**WALK, "walkers": 1, "siblings": 3},
    ),
    Ablation(
        "a decoder raises what it likes",
        ("S15",),
        ((peer_module, "decode_frame", breaking.fragile),),
        {"graph": ("clique", 8), "faults": "liars=50%", "seconds": 12.0},
        seeds=(4, 1, 2, 3, 5, 6, 7, 8),
    ),
    Ablation(
        "chance that no seed decides",
        ("D1",),
        ((Dice, "bytes", breaking.unseeded),),
        {**WALK, "faults": "crash=3,loss=1%", "seconds": 10.0},
    ),
    *EDGES,
)
