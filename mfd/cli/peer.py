"""`mfd-peer`: start a peer, tell how to join it, then what happens, one line a report."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mfd.cli.errors import EXIT_CODES, Misuse, guarded, log_plainly
from mfd.cli.version import Version

if TYPE_CHECKING:
    from mfd.cli.running import Started

__all__ = ["app", "main"]

Json = dict[str, Any]
HOLD_HELP = """Offer data, as digits/train=sklearn:digits. With announce=labels among the options of
the address, the network is told how its labels are distributed, rounded to 1/20; with
tell=classes, models with replay take along what each class is like in the mean."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


Open = Annotated[
    bool | None,
    typer.Option(
        "--open/--given",
        help="Choose neighbours, or keep to the links given. Default: open without topology.",
    ),
]
Lan = Annotated[bool, typer.Option("--lan", help="Find peers on the LAN, and be found (zeroconf).")]
Advertise = Annotated[
    list[str] | None,
    typer.Option(metavar="HOST:PORT", help="Where others reach this peer, if not there."),
]
Listen = Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Port 0: any free one.")]
Join = Annotated[
    list[str] | None, typer.Option(metavar="ADDRESS", help="host:port, or a join line.")
]
Hold = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=ADDRESS", help="Offer data, as digits/train=sklearn:digits."),
]


Whole = Annotated[
    str | None, typer.Option(metavar="BYTES", help="Of larger models take only parts, as 512MiB.")
]
Resident = Annotated[
    str | None,
    typer.Option(metavar="RECIPE", help="A model of this peer's own: walkers teach it."),
]


@app.command(epilog=EXIT_CODES)
def peer(
    *,
    listen: Listen = None,
    join: Join = None,
    hold: Hold = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder of key, ledger and objects.", file_okay=False)
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings, mfd.toml.")] = None,
    topology: Annotated[
        Path | None, typer.Option(help="Graph file; with --node it tells all the rest.")
    ] = None,
    node: Annotated[str | None, typer.Option(help="Which node of the topology this is.")] = None,
    emulate: Annotated[
        bool, typer.Option("--emulate", help="Links as slow and lossy as the topology says.")
    ] = False,
    open_network: Open = None,
    lan: Lan = False,
    advertise: Advertise = None,
    custodian: Annotated[
        bool, typer.Option("--custodian", help="Take custody without holding data.")
    ] = False,
    memory: Annotated[
        str | None, typer.Option(metavar="BYTES", help="For a model and its training, as 2GiB.")
    ] = None,
    whole: Whole = None,
    resident: Resident = None,
    json_lines: Annotated[bool, typer.Option("--json", help="Every line is JSON.")] = False,
    until_eof: Annotated[
        bool, typer.Option("--until-eof", help="Stop when standard input ends.")
    ] = False,
    version: Version = False,
) -> None:
    """Start a peer of a network in which models travel toward the data.

    Prints peer id, join line, status address and state folder, then what happens. Ctrl-C stops it;
    the same state folder goes on where it stopped.
    """
    import asyncio

    from mfd.cli import running
    from mfd.cli.config import load_settings, parse_hold

    over: Json = _from_topology(topology, node, emulate=emulate)
    over["join"] = [*over.get("join", []), *(join or [])]
    over["hold"] = {**over.get("hold", {}), **dict(map(parse_hold, hold or []))}
    over["advertise"] = advertise or []
    over.update({} if open_network is None else {"open_network": open_network})
    flags = {"listen": listen, "custodian": custodian, "lan": lan, "memory": memory}
    flags |= {"resident": resident, "whole": whole}
    over.update({name: value for name, value in flags.items() if value})
    log_plainly("mfd-peer")
    settings = load_settings(config, over)
    running.check_holdings(settings)
    settings = settings.model_copy(update={"listen": running.settle_port(settings.listen)})
    folder = state or Path(settings.state or running.default_state(settings.listen, node or ""))
    voice = _Voice(_printer(json_lines=json_lines), json_lines=json_lines)
    made = running.make_node(settings, folder, voice.report)
    started = lambda n: voice.started(running.describe(n, settings, folder))  # noqa: E731 - one use
    asyncio.run(running.run(made, settings, started, until_eof=until_eof))


def _from_topology(path: Path | None, name: str | None, *, emulate: bool = False) -> Json:
    """Settings of one node: each edge is dialled by the end with the smaller name."""
    if path is None and name is None:
        return {"emulate": {}} if emulate else {}
    if path is None or name is None:
        raise Misuse("--topology FILE and --node NAME go together")
    from mfd.cli.errors import nearest
    from mfd.topology import TopologyError, link_cost, load

    try:
        graph = load(path)
    except TopologyError as exc:
        raise Misuse(str(exc)) from exc
    if name not in graph.nodes:
        raise Misuse(f"{path}: there is no node {name!r}; {nearest(name, graph.nodes)}")
    own = graph.nodes[name]
    join, costs, slow = [], {}, {}
    for edge in graph.edges:
        if name not in (edge.a, edge.b) or edge.a == edge.b:
            continue
        other = edge.b if name == edge.a else edge.a
        if other not in graph.nodes:
            raise Misuse(f"{path}: edge {edge.a} - {edge.b}: there is no node {other!r}")
        if name < other:
            address = graph.nodes[other].address
            if not address or address.endswith(":0"):
                raise Misuse(f"{path}: {name} dials {other}, so {other} needs an address with port")
            join.append(address)
            costs[address] = link_cost(edge)
            names = ("latency_us", "bandwidth_bps", "loss")
            slow[address] = {field: getattr(edge, field) for field in names}
    told: Json = {"join": join, "costs": costs, "hold": dict(own.hold), "open_network": False}
    if emulate:
        told["emulate"] = slow
    if own.address:
        told["listen"] = own.address
    if own.memory_bytes:
        told["memory"] = f"{own.memory_bytes}B"
    if own.whole_bytes:
        told["whole"] = f"{own.whole_bytes}B"
    return {**told, "custodian": True} if own.custodian else told


class _Voice:
    """Tells the start first, then every report; falls silent when nobody listens any more."""

    def __init__(self, write: Callable[[Json], None], *, json_lines: bool) -> None:
        self._write = write
        self._json = json_lines
        self._early: list[Json] | None = []

    def started(self, told: Started) -> None:
        from dataclasses import asdict

        early, self._early = self._early or [], None
        try:
            if self._json:
                print(json.dumps({"kind": "started", **asdict(told)}), flush=True)
            else:
                for name, value in asdict(told).items():
                    print(f"{name:<7} {value}", flush=True)
        except OSError:
            self._write = lambda _: None
        for report in early:
            self.report(report)

    def report(self, report: Json) -> None:
        if self._early is not None:
            self._early.append(report)
            return
        try:
            self._write(report)
        except OSError:  # the terminal or pipe is gone, the peer goes on
            self._write = lambda _: None


def _printer(*, json_lines: bool) -> Callable[[Json], None]:
    if json_lines:
        from mfd.web.api import dumps

        return lambda report: print(dumps(report), flush=True)
    from mfd.cli.view import brief, console, report_line

    out = console(sys.stdout)

    def show(report: Json) -> None:
        told = dict(report)
        walker = told.pop("walker", None)
        out.print(report_line(told, f"{brief(str(walker))} " if walker else ""), soft_wrap=True)

    return show


def main(argv: list[str] | None = None) -> int:
    """Run `mfd-peer`; return its exit code."""
    return guarded("mfd-peer", lambda: app(args=argv, prog_name="mfd-peer"))


if __name__ == "__main__":
    sys.exit(main())
