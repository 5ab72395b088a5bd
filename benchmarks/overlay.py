"""What the simulator and the overlay in it reach: one function a claim, figure beside target.

    python benchmarks/overlay.py                  every row, in a few minutes
    python benchmarks/overlay.py speed campaign   some rows
    python benchmarks/overlay.py campaign --seeds 1000 --jobs 2
    python benchmarks/overlay.py custody --minutes 20 --jobs 2

Rates are events handled by peers in a second of CPU time of one core: other work on the machine
lowers them through its caches, but does not count itself in. An event is a frame, an alarm, an
answer of a disk or a learner, a link that comes or goes; an alarm that was replaced is none.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter, process_time

from mfd.sim.ablations import ABLATIONS
from mfd.sim.faults import parse
from mfd.sim.running import Outcome, run
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.sim.swarm import swarm
from mfd.topology import make

SEED = 1
HANDOVERS = 1_000_000
CAMPAIGN_SECONDS, CAMPAIGN_SEEDS, CAMPAIGN_JOBS = 600, 1000, 2


def row(claim: str, figure: str, target: str, *, met: bool | None = None) -> None:
    verdict = "" if met is None else "met" if met else "MISSED"
    print(f"{claim:<58}  {figure:>34}  {target:>26}  {verdict}", flush=True)


def timed(scenario: Scenario, *, checks: bool) -> tuple[Outcome, float]:
    start = process_time()
    outcome = run(scenario, checks=checks)
    return outcome, process_time() - start


def rate_of(scenario: Scenario, *, checks: bool = False) -> float:
    outcome, seconds = timed(scenario, checks=checks)
    assert outcome.sound, outcome.violation
    return outcome.events / seconds


def _quiet(peers: int = 30, **fields: object) -> Scenario:
    known = {"seconds": 240.0, "calm": 10.0, "config": SWARM_CONFIG, "walkers": 6, "laps": 6}
    return Scenario(make("small-world", peers, SEED), seed=SEED, **{**known, **fields})


def speed(_: argparse.Namespace) -> None:
    """Events a core second, with the stand-in signer and with Ed25519."""
    trouble = parse("crash=0.5,cut=0.5,loss=1%")
    for name, scenario in (
        ("quiet", _quiet()),
        ("with faults", _quiet(faults=trouble, seconds=60.0)),
    ):
        rate = rate_of(scenario)
        row(f"events/s, {name}, stand-in signer", f"{rate:,.0f}", ">= 50,000", met=rate >= 50_000)
        checked = rate_of(scenario, checks=True)
        row(f"events/s, {name}, checked after every event", f"{checked:,.0f}", "")
        real = rate_of(replace(scenario, real_signatures=True))
        row(f"events/s, {name}, Ed25519", f"{real:,.0f}", ">= 15,000", met=real >= 15_000)


def _seed(seed: int) -> tuple[Outcome, float]:
    return timed(swarm(seed), checks=True)


def campaign(args: argparse.Namespace) -> None:
    """Seeds of 3 to 30 peers with faults: sound, and how long a thousand take."""
    start = perf_counter()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        done = pool.map(_seed, range(args.seeds), chunksize=1)
    wall, cpu = perf_counter() - start, sum(seconds for _, seconds in done)
    outcomes = [outcome for outcome, _ in done]
    broken = [outcome for outcome in outcomes if not outcome.sound]
    for outcome in broken:
        print(f"  {outcome.violation}: mfd sim --swarm --peers 30 --seed {outcome.seed}")
    row(f"{args.seeds} swarm seeds: broken invariants", str(len(broken)), "0", met=not broken)
    scale = CAMPAIGN_SEEDS / args.seeds
    row(
        f"{args.seeds} swarm seeds on {args.jobs} cores",
        f"{wall:.0f} s wall, {cpu:.0f} s CPU",
        "",
    )
    need = cpu * scale / CAMPAIGN_JOBS
    row(
        "a thousand on two idle cores, by CPU time",
        f"{need:.0f} s",
        f"<= {CAMPAIGN_SECONDS} s",
        met=need <= CAMPAIGN_SECONDS,
    )
    handovers = sum(o.handovers for o in outcomes)
    forks, lost = sum(o.forks for o in outcomes), sum(o.excused for o in outcomes)
    row("hand-overs in them", f"{handovers:,}", "10^6 in all", met=None)
    row("walkers lost though a promised copy was spared", "0" if not broken else "see above", "0")
    row("walkers lost with every copy that was promised", str(lost), "")
    row("walkers with two unfenced owners at the end", str(forks), "0 silent")
    changes = sum(o.route_changes for o in outcomes)
    row("circles in next hops / changes of them", f"0 / {changes:,}", "0 / 10^6")


def _travel(seed: int) -> tuple[Outcome, float]:
    """Walkers that hardly train, so that nearly all they do is change hands."""
    faults = "crash=2,cut=2,half=1,pause=1,amnesia=0.2,loss=1%,partition@20s-35s=0.5"
    scenario = Scenario(
        make("small-world", 10, seed),
        seed=seed,
        faults=parse(faults),
        seconds=60.0,
        calm=0.0,
        walkers=8,
        laps=200,
        layers=2,
        training=0.02,
        holders=6,
        config=SWARM_CONFIG,
    )
    return timed(scenario, checks=True)


def custody(args: argparse.Namespace) -> None:
    """Hand-overs among crashes, cuts, a partition and lost disks, watched by every checker."""
    start, done = perf_counter(), list[tuple[Outcome, float]]()
    with multiprocessing.get_context("spawn").Pool(args.jobs) as pool:
        for pair in pool.imap(_travel, range(args.first, args.first + HANDOVERS)):
            done.append(pair)
            if not pair[0].sound:
                print(f"  seed {pair[0].seed}: {pair[0].violation}", flush=True)
            enough = sum(outcome.handovers for outcome, _ in done) >= HANDOVERS
            if enough or perf_counter() - start > args.minutes * 60:
                break
        pool.terminate()
    outcomes = [outcome for outcome, _ in done]
    broken = sum(not outcome.sound for outcome in outcomes)
    handovers, cpu = sum(o.handovers for o in outcomes), sum(seconds for _, seconds in done)
    row(
        f"hand-overs in {len(done)} seeds from {args.first} on",
        f"{handovers:,}, {handovers / cpu:,.0f}/CPU s",
        "10^6",
        met=handovers >= HANDOVERS,
    )
    row("  lost, forked silently or otherwise broken", f"{broken} seeds", "0", met=not broken)
    excused = sum(o.excused for o in outcomes)
    row("  lost with every copy that was promised", str(excused), "")
    reissued, fenced = sum(o.reissued for o in outcomes), sum(o.fenced for o in outcomes)
    row("  re-issued, and fenced", f"{reissued}, {fenced}", "")


def ablations(_: argparse.Namespace) -> None:
    """How many rules can be taken away without a checker noticing."""
    caught = 0
    for ablation in ABLATIONS:
        for seed in ablation.seeds:
            with ablation.broken():
                if ablation.caught_by == ("D1",):
                    traces = {run(ablation.scenario(seed)).trace for _ in range(2)}
                    said = "D1" if len(traces) > 1 else ""
                else:
                    said = run(ablation.scenario(seed)).violation
            if said.partition(":")[0] in ablation.caught_by:
                caught += 1
                break
        else:
            print(f"  not noticed: {ablation.name}")
    total = len(ABLATIONS)
    row(
        "rules taken away that a checker notices",
        f"{caught} of {total}",
        "all",
        met=caught == total,
    )


def large(args: argparse.Namespace) -> None:
    """A large world with heartbeats abstracted: it forms, routes, and a walker travels."""
    scenario = Scenario(
        make("small-world", args.peers, SEED),
        seed=SEED,
        seconds=20.0,
        calm=0.0,
        heartbeats=False,
        faults=parse("kill=0.02,cut=0.02,loss=1%"),
    )
    start = perf_counter()
    outcome, cpu = timed(scenario, checks=False)
    wall = perf_counter() - start
    what = f"{args.peers} peers, 22 s virtual, heartbeats abstracted"
    row(what, f"{cpu:.0f} s CPU, {wall:.0f} s wall", "N=10,000 in <= 30 min")
    row("  events, events/s", f"{outcome.events:,}, {outcome.events / cpu:,.0f}", "")
    row("  hand-overs meanwhile", str(outcome.handovers), "")


ROWS: dict[str, Callable[[argparse.Namespace], None]] = {
    "speed": speed,
    "ablations": ablations,
    "campaign": campaign,
    "custody": custody,
    "large": large,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], help="default: all")
    parser.add_argument("--seeds", type=int, default=40, help="of the campaign")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=2.0, help="of custody, at most")
    parser.add_argument("--first", type=int, default=0, help="seed of custody")
    parser.add_argument("--peers", type=int, default=10_000, help="of the large world")
    args = parser.parse_args()
    print(f"python benchmarks/overlay.py {' '.join(sys.argv[1:])}; worlds of seed {SEED}")
    for name in args.rows or ROWS:
        partial(ROWS[name], args)()
    return 0


if __name__ == "__main__":
    sys.exit(main())
