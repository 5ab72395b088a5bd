"""`mfd demo`: six peers on this machine train a real model by letting it travel.

Rules of this file: everything it prints was measured in this very run, on real processes and
sockets; centralised training is computed here on the same model, seed and number of samples.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfd.cli.errors import CommandError, Misuse

if TYPE_CHECKING:
    from mfd.cli.demoview import View
    from mfd.cli.fleet import Fleet
    from mfd.topology import Topology

LEASE_SECONDS = 12.0  # short, so that a killed peer is missed while somebody is watching
QUIET_SECONDS = 120.0
LOOK_SECONDS = 2  # how soon a dead peer is noticed here
MODES = ("snake", "walk", "fedavg")
SHIPPED = "shipped/campus6.toml"
ROUNDS = 12  # of federated averaging, as many as reach the snake's accuracy
PLAIN = {"distill": 0.0, "anchor": 0.0, "replay": 0.0}  # of baselines: what helps not to forget
Json = dict[str, Any]


@dataclass(slots=True)
class Outcome:
    """One row of the closing table."""

    mode: str
    accuracy: float
    seconds: float
    once_bytes: float = 0.0  # objects, counted once from custodian to custodian
    links_bytes: int = 0  # everything on every link, heartbeats and headers too
    peak_bytes: float = 0.0


def demo(
    seed: Annotated[int, typer.Option(help="Of data split, model, batches and keys.")] = 1,
    skew: Annotated[float, typer.Option(help="Dirichlet alpha of the label skew.")] = 0.3,
    data: Annotated[
        str, typer.Option(help="Address of the data, split over the holders.")
    ] = "sklearn:digits",
    topology: Annotated[
        Path | None, typer.Option(help="Graph file; default: campus6, as shipped.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="Plan file over the demo's own plan.")] = None,
    modes: Annotated[
        str, typer.Option(help="Which to run, from snake,walk,fedavg,centralised.")
    ] = "snake,walk,fedavg,centralised",
    folder: Annotated[Path, typer.Option(help="Work folder; emptied first.")] = Path("runs/demo"),
    out: Annotated[
        Path | None, typer.Option(help="Where to save the snake's model; default: in the folder.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Of each trainer.")] = 1,
) -> None:
    """Start peers as processes, send a model through them, and compare with the usual ways."""
    from mfd.cli.demoview import View
    from mfd.cli.fleet import Fleet, with_free_ports

    wanted = [mode.strip() for mode in modes.split(",") if mode.strip()]
    if strangers := sorted(set(wanted) - {*MODES, "centralised"}):
        raise Misuse(f"--modes {strangers[0]}: choose from {', '.join((*MODES, 'centralised'))}")
    if out is not None and not out.absolute().parent.is_dir():
        raise Misuse(f"--out {out}: there is no folder {out.absolute().parent}")
    table = _plan_table(plan, seed)
    dealt = _deal(_load(topology), table, data, split=f"skew={skew}&seed={seed}")
    graph = with_free_ports(dealt)
    home = next(n for n, node in graph.nodes.items() if table["verify"][0] in node.hold)
    _check_fit(table, graph.nodes[home].hold[table["verify"][0]], data)
    _empty(folder)
    _write_keys(folder, list(graph.nodes), seed)
    view = View()
    view.opening(graph, home=home, data=data, skew=skew, seed=seed)
    settings = {"lease_seconds": LEASE_SECONDS, "threads": threads}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # peers stop too
    outcomes: list[Outcome] = []
    saved = out or folder / "snake.safetensors"
    started = time.monotonic()
    try:
        with Fleet(graph, folder, settings) as fleet:
            view.running(fleet.members, time.monotonic() - started)
            for mode in wanted:
                if mode in MODES:
                    path = saved if mode == "snake" else None
                    outcomes.append(_travel(fleet, home, mode, table, view=view, path=path))
    finally:
        view.rest()
    if "centralised" in wanted:
        view.say("Centralised: the same model on the pooled data, as many samples.")
        outcomes.append(_centralised(data, table, seed=seed, threads=threads))
    rows = [asdict(outcome) for outcome in outcomes]
    (folder / "outcomes.json").write_text(json.dumps(rows, indent=1) + "\n")
    view.closing(outcomes, saved if "snake" in wanted else None)


def _load(path: Path | None) -> Topology:
    import mfd.topology
    from mfd.topology import TopologyError, load

    path = path or Path(mfd.topology.__file__).parent / SHIPPED
    try:
        return load(path)
    except TopologyError as error:
        raise Misuse(str(error)) from error


def _deal(graph: Topology, table: Json, data: str, *, split: str) -> Topology:
    """Deal the data out to the nodes that hold any, and the test split to one of them."""
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import check

    holders = [n for n, node in graph.nodes.items() if any("train" in k for k in node.hold)]
    testers = [n for n, node in graph.nodes.items() if any("test" in k for k in node.hold)]
    if not holders:
        raise Misuse("the topology has no node that holds data named .../train")
    sign = "&" if "?" in data else "?"
    nodes = {}
    for name, node in graph.nodes.items():
        hold = {}
        if name in holders:
            part = f"part={holders.index(name) + 1}/{len(holders)}"
            hold[table["names"][0]] = f"{data}{sign}{part}&{split}"
        if name == (testers or holders)[0]:
            hold[table["verify"][0]] = f"{data}{sign}split=test"
        for address in hold.values():
            try:
                check(address)
            except HoldingError as error:
                raise Misuse(f"--data {data}: {error}") from error
        nodes[name] = replace(node, hold=hold)
    return replace(graph, nodes=nodes)


def _check_fit(table: Json, test: str, data: str) -> None:
    """Refuse a model that does not take the data, before any peer is started. Raises: Misuse."""
    from mfd.cli.fit import check_table
    from mfd.learn.errors import HoldingError
    from mfd.learn.holdings import load

    try:
        sample = load(test)
    except HoldingError as error:
        raise Misuse(f"--data {data}: {error}") from error
    check_table(table, data, sample)


def _plan_table(path: Path | None, seed: int) -> Json:
    from mfd.cli.plans import join_plan, read_plan

    own: Json = {
        "recipe": {"zoo": "cnn", "inputs": [1, 8, 8], "classes": 10},
        "names": ["digits/train"],
        "verify": ["digits/test"],
        "laps": 4,
        "layers_per_stop": 2,
    }
    table = join_plan(own, read_plan(path) if path else {}, {"seed": seed})
    if not table["names"] or not table["verify"]:
        raise Misuse(f"plan {path}: the demo needs a data name to train on and one to verify with")
    return table


def _empty(folder: Path) -> None:
    """Only a folder that a demo made is emptied."""
    mark = folder / ".mfd-demo"
    if folder.exists():
        if any(folder.iterdir()) and not mark.exists():
            raise Misuse(f"--folder {folder} holds something else: give an empty or new folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    mark.touch()


def _write_keys(folder: Path, names: list[str], seed: int) -> None:
    """Keys that follow from the seed: routes of equal length are then the same in every run."""
    from blake3 import blake3

    from mfd.net.keys import KeyPair

    for name in names:
        key = blake3(f"mfd demo {seed} {name}".encode()).digest()
        KeyPair.create(folder / name / "key", key)


def _travel(
    fleet: Fleet, home: str, mode: str, table: Json, *, view: View, path: Path | None
) -> Outcome:
    """Send one walker and follow it home."""
    from mfd.cli.plans import make_plan
    from mfd.cli.saving import open_model, save
    from mfd.cli.sending import build, make_walker
    from mfd.net.keys import KeyPair

    client = fleet.client(home)
    plan = make_plan(_for_mode(table, mode, fleet), bytes.fromhex(fleet.members[home].peer))
    module = build(plan.recipe, seed=plan.seed)
    user = KeyPair.from_seed(plan.seed.to_bytes(32, "big"))
    before, started = fleet.sent_bytes(), time.monotonic()
    walker, parts = make_walker(module, plan, user)
    client.post_walker(parts)
    outcome = Outcome(mode, 0.0, 0.0)
    view.departure(mode, plan, walker)
    for report in _reports(fleet, home, walker):
        view.hop(report, fleet.names())
        outcome.once_bytes += report.get("came_bytes", 0) + report.get("carried_bytes", 0)
        outcome.peak_bytes = max(outcome.peak_bytes, report.get("peak_bytes", 0))
        if report["kind"] == "measured":
            outcome.accuracy = report["accuracy"]
    outcome.seconds = time.monotonic() - started
    outcome.links_bytes = fleet.sent_bytes() - before
    if path is not None:
        body = client.model(walker, 1 << 30)
        save(open_model(body, f"the model from {client.url}"), body, path)
    return outcome


def _for_mode(table: Json, mode: str, fleet: Fleet) -> Json:
    from mfd.cli.plans import join_plan
    from mfd.packet.plan import Plan

    name = table["names"][0]
    holders = sum(1 for node in fleet.topology.nodes.values() if name in node.hold)
    told = join_plan(table, {"mode": mode, "min_holders": holders})
    if mode != "fedavg":
        return told
    laps = int(told.get("laps", _default(Plan, "laps")))
    epochs = _epochs(told) * laps / ROUNDS
    return join_plan(told, {"laps": ROUNDS, "learn": {**PLAIN, "epochs": epochs}})


def _default(kind: Any, field: str) -> Any:
    return kind.__dataclass_fields__[field].default


def _epochs(table: Json) -> float:
    from mfd.learn.training import DEFAULTS

    return float(table.get("learn", {}).get("epochs", DEFAULTS["epochs"]))


def _reports(fleet: Fleet, home: str, walker: str) -> Iterator[Json]:
    """Reports of a walker until it is home. Raises: CommandError once it cannot come home."""
    told: set[str] = set()
    last = time.monotonic()
    batches = fleet.client(home).follow(walker, wait=LOOK_SECONDS)
    while True:
        try:
            batch = next(batches)
        except CommandError as error:
            if why := fleet.why_gone(home):
                raise CommandError(f"the walker's home is gone: {why}") from error
            raise
        for report in batch:
            last = time.monotonic()
            if report["kind"] == "learning failed":
                who = fleet.names().get(report["peer"], "a peer")
                raise CommandError(f"{who} could not learn: {report['reason']}")
            yield report
            if report["kind"] == "arrived":
                return
        for member in fleet.ended():
            if member.name not in told:
                told.add(member.name)
                then = "if it owned the walker, the peer before it takes the walker up again"
                yield {"kind": "ended", "reason": f"{member.why_ended()}; {then}"}
        if time.monotonic() - last > QUIET_SECONDS:
            raise CommandError(
                f"nothing has been heard of the walker for {QUIET_SECONDS:.0f} s; the logs in "
                f"{fleet.folder} and `mfd status --api {fleet.client(home).url}` say more"
            )


def _centralised(data: str, table: Mapping[str, Any], *, seed: int, threads: int) -> Outcome:
    import torch

    from mfd.cli.sending import build
    from mfd.learn.holdings import load
    from mfd.learn.training import Options, measure, train
    from mfd.packet.plan import Plan

    torch.set_num_threads(threads)
    sign = "&" if "?" in data else "?"
    passes = _epochs(dict(table)) * int(table.get("laps", _default(Plan, "laps")))
    started = time.monotonic()
    module = build(table["recipe"], seed=seed)
    learn = {**table.get("learn", {}), **PLAIN, "logit_adjustment": 0.0, "epochs": passes}
    options = Options.of(learn)
    from mfd.learn.layers import find_layers

    whole = ((0, len(find_layers(module))),)
    train(module, load(f"{data}{sign}split=train"), trained=whole, options=options, seed=seed)
    accuracy = measure(module, load(f"{data}{sign}split=test"))["accuracy"]
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Outcome("centralised", accuracy, time.monotonic() - started, peak_bytes=peak)
