"""`mfd sim`: the very same core on a virtual clock, with faults, watched by checkers.

Rules of this file: flags to scenarios, outcomes to tables. Campaigns run in processes of their own;
a seed that fails prints the one line that runs it again.
"""

from __future__ import annotations

import multiprocessing
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from mfd.cli.errors import CommandError, Misuse, nearest
from mfd.cli.traces import writing
from mfd.cli.view import console, data_size, print_json
from mfd.core.config import Config
from mfd.sim.faults import FaultError, Faults, parse
from mfd.sim.running import Outcome, run, settling
from mfd.sim.scenario import SWARM_CONFIG, Scenario
from mfd.sim.swarm import PEERS_MAX, swarm
from mfd.topology import KINDS, Topology, TopologyError, load, make

__all__ = ["sim", "simulate"]

TIMERS: dict[str, dict[str, Any]] = {"default": {}, "quick": SWARM_CONFIG}
JOBS_MAX = 256
ENGINES = ("processes", "ray")
LEASES = 4  # that a walker may need to come home after the trouble
SHOWN_FAILURES = 20
# with a value; not of what is run again
ONE_RUN = ("--seed", "--seeds", "--jobs", "--engine", "--trace")


@dataclass(frozen=True, slots=True)
class Order:
    """The flags of `mfd sim`, by name."""

    graph: Path | None
    generate: str | None
    peers: int
    seed: int
    faults: str | None
    drawn: bool
    seconds: float
    calm: float | None
    walkers: int
    siblings: int
    laps: int
    holders: int
    copies: int
    timers: str
    real: bool
    chosen: bool
    heartbeats: bool
    checks: bool
    trace: Path | None
    seeds: int
    jobs: int
    engine: str
    as_json: bool


@dataclass(frozen=True, slots=True)
class Timed:
    """An outcome and what it cost."""

    outcome: Outcome
    seconds: float  # of the wall clock
    cpu_seconds: float

    @property
    def rate(self) -> float:
        """Events in a second of one core."""
        return self.outcome.events / max(self.cpu_seconds, 1e-9)

    def plain(self) -> dict[str, Any]:
        """For programs."""
        return {
            **asdict(self.outcome),
            "wall_seconds": round(self.seconds, 3),
            "events_per_core_second": round(self.rate),
        }


def simulate(args: list[str]) -> None:
    """Run `mfd sim` with these arguments."""
    shown = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    shown.command()(sim)
    shown(args=args, prog_name="mfd sim", obj=args)


def sim(
    ctx: typer.Context,
    graph: Annotated[Path | None, typer.Argument(help="Graph file.")] = None,
    *,
    generate: Annotated[
        str | None, typer.Option(metavar="KIND", help="Make a graph: small-world, grid, ...")
    ] = None,
    peers: Annotated[int, typer.Option(min=2, help="Of a made graph; at most, of a swarm.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Decides everything.")] = 0,
    faults: Annotated[
        str | None, typer.Option(help="As crash=0.5,loss=1%,delay=20ms,partition@30s-60s; none.")
    ] = None,
    drawn: Annotated[
        bool, typer.Option("--swarm", help="Draw graph, faults and walkers from the seed.")
    ] = False,
    seconds: Annotated[float, typer.Option(min=0, help="Of trouble, virtual.")] = 60.0,
    calm: Annotated[
        float | None, typer.Option(min=0, help="Seconds after it, at most; 0: safety alone.")
    ] = None,
    walkers: Annotated[int, typer.Option(min=0, help="How many models travel.")] = 1,
    siblings: Annotated[
        int, typer.Option(min=1, max=64, help="So many of each, which merge where they meet.")
    ] = 1,
    laps: Annotated[int, typer.Option(min=1, help="Of each walker.")] = 1,
    holders: Annotated[
        int, typer.Option(min=0, help="Where the graph names none; 0: a third, 2 to 24.")
    ] = 0,
    copies: Annotated[int, typer.Option(min=1, max=3, help="Kept of a walker.")] = 2,
    timers: Annotated[str, typer.Option(help="default, or quick: leases of 8 s.")] = "default",
    real: Annotated[bool, typer.Option("--real-signatures", help="Ed25519.")] = False,
    chosen: Annotated[
        bool,
        typer.Option("--open", help="Peers choose their neighbours; of a graph: who holds what."),
    ] = False,
    heartbeats: Annotated[
        bool, typer.Option(help="Without: silence is told of, 6 to 10 s late; for large worlds.")
    ] = True,
    checks: Annotated[bool, typer.Option(help="Watch the invariants.")] = True,
    trace: Annotated[Path | None, typer.Option(help="Write every event: mfd replay.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many, from --seed on.")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=JOBS_MAX, help="Processes for them.")] = 1,
    engine: Annotated[
        str,
        typer.Option(help="processes here; ray: a Ray cluster (RAY_ADDRESS; without it, here)."),
    ] = "processes",
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Run peers in an invented world with faults, and check that nothing breaks."""
    flags = {name: value for name, value in locals().items() if name != "ctx"}
    order = Order(**flags)
    if engine not in ENGINES:
        raise Misuse(f"--engine {engine}: {nearest(engine, ENGINES)}")
    scenario_of = _reader(order)
    again = partial(_again, list(ctx.obj))
    if order.seeds > 1:
        _campaign(order, scenario_of, again)
    else:
        _one(order, scenario_of(order.seed), again)


def _again(args: list[str], seed: int) -> str:
    """The line that runs one seed of this command again."""
    left, skip = [], False
    for word in args:
        if skip or word == "--json":
            skip = False
        elif word in ONE_RUN:
            skip = True
        elif not word.startswith(tuple(f"{name}=" for name in ONE_RUN)):
            left.append(word)
    return shlex.join(["mfd", "sim", *left, "--seed", str(seed)])


# scenarios


def _reader(order: Order) -> Callable[[int], Scenario]:
    """What makes the scenario of a seed. Raises: Misuse."""
    if order.graph is not None and (order.generate or order.drawn):
        raise Misuse("a graph file, --generate and --swarm exclude each other: give one of them")
    if order.trace is not None and order.seeds > 1:
        raise Misuse("--trace writes one run: leave out --seeds")
    try:
        faults = None if order.faults is None else parse(order.faults)
    except FaultError as exc:
        raise Misuse(f"--faults: {exc}") from exc
    if order.drawn:
        return partial(_drawn, min(order.peers, PEERS_MAX), faults, order.real)
    if order.timers not in TIMERS:
        raise Misuse(f"--timers {order.timers}: {nearest(order.timers, TIMERS)}")
    changes = TIMERS[order.timers]
    config = replace(Config(**changes), open_network=order.chosen)
    rest = settling(config) + (LEASES * config.lease_us + config.failed_holder_us) / 1e6
    base = Scenario(
        _graph(order, order.seed),
        faults=faults or Faults(),
        seconds=order.seconds,
        calm=rest if order.calm is None else order.calm,
        walkers=order.walkers,
        siblings=order.siblings,
        laps=order.laps,
        holders=order.holders,
        copies=order.copies,
        real_signatures=order.real,
        open=order.chosen,
        heartbeats=order.heartbeats,
        config=changes,
    )
    return partial(_given, base, order)


def _drawn(peers: int, faults: Faults | None, real: bool, seed: int) -> Scenario:
    return replace(swarm(seed, peers_max=peers, faults=faults), real_signatures=real)


def _given(base: Scenario, order: Order, seed: int) -> Scenario:
    made = order.graph is None and seed != order.seed
    return replace(base, seed=seed, topology=_graph(order, seed) if made else base.topology)


def _graph(order: Order, seed: int) -> Topology:
    """Read or make the graph. Raises: Misuse."""
    kind = order.generate or "small-world"
    try:
        graph = make(kind, order.peers, seed) if order.graph is None else load(order.graph)
    except TopologyError as exc:
        hint = f" ({nearest(kind, KINDS)})" if order.graph is None and kind not in KINDS else ""
        raise Misuse(f"{exc}{hint}") from exc
    problems = graph.check(addresses=False)
    if problems:
        raise Misuse(f"{order.graph}: {problems[0]}")
    return graph


# running


def _timed(scenario: Scenario, *, checks: bool, **how: Any) -> Timed:
    start, cpu = perf_counter(), process_time()
    outcome = run(scenario, checks=checks, **how)
    return Timed(outcome, perf_counter() - start, process_time() - cpu)


def _one(order: Order, scenario: Scenario, again: Callable[[int], str]) -> None:
    if order.trace is None:
        timed = _timed(scenario, checks=order.checks)
    else:
        with writing(order.trace, scenario, checks=order.checks) as book:
            timed = _timed(scenario, checks=order.checks, log=book.log)
            book.close(timed.outcome)
    if order.as_json:
        print_json({**timed.plain(), "faults_told": str(scenario.faults)})
    else:
        _show(timed, scenario, order)
    if not timed.outcome.sound:
        line = again(order.seed)
        raise CommandError(f"{timed.outcome.violation}; run it again: {line}")


def _show(timed: Timed, scenario: Scenario, order: Order) -> None:
    outcome = timed.outcome
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in _rows(timed, scenario, order):
        style = "red" if name == "invariants" and not outcome.sound else ""
        table.add_row(Text(name, style="bold"), Text(text, style=style))
    console().print(table)


def _rows(timed: Timed, scenario: Scenario, order: Order) -> Iterator[tuple[str, str]]:
    o = timed.outcome
    lie = f", {o.liars} of them lie" if o.liars else ""
    yield "peers", f"{o.peers}{lie}; {o.links} links made; core after the trouble: {o.core}"
    if not order.heartbeats:
        yield "fidelity", "heartbeats abstracted: ends are told of silence after a drawn time"
    if scenario.open:
        yield "network", "open: peers choose their neighbours"
    yield "time", f"{o.seconds:.1f} s virtual in {timed.seconds:.2f} s"
    yield "events", f"{o.events}, {timed.rate:,.0f} a second of one core"
    yield "faults told", str(scenario.faults)
    happened = ", ".join(f"{kind} {count}" for kind, count in o.faults.items())
    yield "faults that came", happened or "none"
    yield (
        "walkers",
        (
            f"{o.born} born, {o.home} home; {o.handovers} hand-overs, {o.stops} stops, "
            f"{o.merges} merges, {o.reissued} re-issued, {o.fenced} fenced, {o.forks} forked, "
            f"{o.excused} lost with all copies"
        ),
    )
    if order.checks:
        yield "routes", f"{o.route_changes} changes, {o.route_entries} entries told"
        yield "circuits", f"{o.circuits} opened, relayed ones counted at every hop"
    idle = f"; a quiet peer: {o.idle_rate:.0f} B/s a link" if o.idle_rate else ""
    yield "bytes", f"{data_size(o.control_bytes)} control, {data_size(o.bulk_bytes)} bulk{idle}"
    kind = "Ed25519, each computed once for all peers" if order.real else "a stand-in's"
    yield "signatures", f"{o.signatures} checked ({kind}); at most {o.signatures_peak:.1f}/s a peer"
    yield "invariants", _verdict(o, order)
    yield "trace", o.trace


def _verdict(outcome: Outcome, order: Order) -> str:
    if not order.checks:
        return "not watched"
    if outcome.violation:
        return outcome.violation
    share = f"{outcome.checked} of {outcome.events} events, sampled"
    return f"hold; looked at after {share if outcome.sampled else 'every event'}"


# campaigns


def _seed(scenario_of: Callable[[int], Scenario], checks: bool, seed: int) -> Timed:
    return _timed(scenario_of(seed), checks=checks)


def _campaign(
    order: Order, scenario_of: Callable[[int], Scenario], again: Callable[[int], str]
) -> None:
    """Run many seeds; say at once which of them fail. Raises: CommandError if any does."""
    numbers = range(order.seed, order.seed + order.seeds)
    work = partial(_seed, scenario_of, order.checks)
    start, done, failures = perf_counter(), list[Timed](), 0
    for timed in _spread(work, numbers, order):
        done.append(timed)
        if not timed.outcome.sound:
            failures += 1
            if failures <= SHOWN_FAILURES and not order.as_json:
                line = again(timed.outcome.seed)
                console().print(Text(f"{timed.outcome.violation}\n  {line}", style="red"))
    seconds = perf_counter() - start
    if order.as_json:
        print_json({"runs": [timed.plain() for timed in done], "wall_seconds": round(seconds, 3)})
    else:
        _show_campaign(done, seconds, order)
    if failures:
        first = next(timed.outcome for timed in done if not timed.outcome.sound)
        raise CommandError(
            f"{failures} of {len(done)} seeds broke an invariant; run the first again: "
            f"{again(first.seed)}"
        )


def _spread(work: Callable[[int], Timed], numbers: Sequence[int], order: Order) -> Iterator[Timed]:
    """Outcomes in the order of their seeds. Raises: Misuse where Ray is not installed."""
    with Progress(console=Console(stderr=True), transient=True) as shown:
        bar = shown.add_task("seeds", total=len(numbers), visible=sys.stderr.isatty())
        if order.engine == "processes" and order.jobs == 1:
            yield from shown.track(map(work, numbers), task_id=bar)
            return
        with _pool(order) as pool:
            yield from shown.track(pool.imap(work, numbers, chunksize=1), task_id=bar)


def _pool(order: Order) -> Any:
    """Processes here, or in a cluster: Ray's pool is used as the library's is."""
    if order.engine == "processes":
        return multiprocessing.get_context("spawn").Pool(order.jobs)
    try:
        from ray.util.multiprocessing import Pool
    except ImportError as exc:
        raise Misuse("--engine ray needs Ray: pip install 'mfd[cluster]'") from exc
    return Pool(order.jobs)


def _show_campaign(done: list[Timed], seconds: float, order: Order) -> None:
    outcomes = [timed.outcome for timed in done]

    def total(name: str) -> int:
        return sum(getattr(outcome, name) for outcome in outcomes)

    cpu = sum(timed.cpu_seconds for timed in done)
    faults: dict[str, int] = {}
    for outcome in outcomes:
        for kind, count in outcome.faults.items():
            faults[kind] = faults.get(kind, 0) + count
    rows = [
        ("seeds", f"{len(done)}, of which {sum(o.sound for o in outcomes)} sound"),
        ("time", f"{seconds:.1f} s in {order.jobs} processes, {seconds / len(done):.2f} s a seed"),
        ("events", f"{total('events')}, {total('events') / max(cpu, 1e-9):,.0f} a core second"),
        ("peers", f"{total('peers')}, {total('liars')} of them lied"),
        ("faults", ", ".join(f"{kind} {count}" for kind, count in sorted(faults.items()))),
        ("walkers", f"{total('born')} born, {total('home')} home, {total('forks')} forked"),
        ("hand-overs", f"{total('handovers')}, {total('reissued')} re-issues"),
        ("lost", f"{total('excused')}, each with all copies that it was promised"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, text in rows:
        table.add_row(Text(name, style="bold"), text)
    console().print(table)
