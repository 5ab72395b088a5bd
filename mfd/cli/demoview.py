"""What the demo shows: where it runs, one line a hop, a table at the end.

A live panel on a terminal, plain lines in a pipe; the words are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from mfd.cli.view import console, data_size
from mfd.packet.plan import Plan
from mfd.topology import Topology

__all__ = ["View"]

Json = dict[str, Any]


class View:
    """Writes to the terminal: lines that stay, and below them, on a terminal, what goes on now."""

    def __init__(self) -> None:
        self._out = console()
        self._now = self._out.status("") if self._out.is_terminal else None

    def say(self, text: str) -> None:
        """One plain sentence."""
        self._out.print(text)

    def opening(self, graph: Topology, **facts: Any) -> None:
        """What is about to run."""
        holders = [name for name, node in graph.nodes.items() if node.hold]
        relays = [name for name, node in graph.nodes.items() if not node.hold]
        self.say(
            f"Starting {len(graph.nodes)} peers: {', '.join(holders)} hold data; "
            f"{', '.join(relays) or 'nobody'} only relays."
        )
        self.say(
            f"Data: {facts['data']}, dealt out with label skew {facts['skew']} (Dirichlet), "
            f"seed {facts['seed']}. Home and verification: {facts['home']}."
        )
        edges = ", ".join(f"{edge.a} - {edge.b}" for edge in graph.edges)
        self.say(f"Links: {edges}.")

    def running(self, members: Mapping[str, Any], seconds: float) -> None:
        """All peers are up."""
        first = next(iter(members.values()))
        self.say(f"All peers run after {seconds:.1f} s; look at one: {first.client.url}\n")

    def departure(self, mode: str, plan: Plan, walker: str) -> None:
        """A walker is on its way."""
        what = {
            "snake": f"{plan.layers_per_stop} layers and the head at a stop, {plan.laps} laps",
            "walk": f"all layers at every stop, {plan.laps} laps",
            "fedavg": f"{plan.laps} rounds from home to every holder and back",
        }[plan.mode]
        self._out.print(f"[bold]{mode}[/bold]: {what}; walker {walker[:8]}")
        self._doing("waiting for holders")
        if self._now is not None:
            self._now.start()

    def _doing(self, text: str) -> None:
        if self._now is not None:
            self._now.update(text)

    def hop(self, report: Json, names: Mapping[str, str]) -> None:
        """One line for one report, if it is part of the story."""
        match report["kind"]:
            case "stop":
                self._stop(report, names)
            case "measured":
                by = names.get(report["by"], report["by"][:8])
                lap, accuracy, loss = report["lap"], report["accuracy"], report["loss"]
                line = f"  lap {lap} measured by {by}: accuracy {accuracy:.2%}, loss {loss:.4f}"
                self._out.print(line, style="green")
            case "reissued":
                who = names.get(report["peer"], report["peer"][:8])
                lost = names.get(report.get("holder", ""), str(report.get("holder", ""))[:8])
                line = (
                    f"  {who} takes the walker up again (epoch {report['epoch']}): {lost} is lost"
                )
                self._out.print(line, style="yellow")
            case "silent":
                lost = names.get(report["holder"], report["holder"][:8])
                line = f"  no word from {lost}; given up in {report['seconds']:.0f} s"
                self._out.print(line, style="yellow")
            case "ended" | "parked":
                self._out.print(f"  {report['reason']}", style="yellow", markup=False)
            case "chosen":
                source, target = (names.get(report[k], report[k][:8]) for k in ("peer", "target"))
                self._doing(f"{source} -> {target}: {report['reason']}")
            case "arrived":
                self.rest()
                self._out.print(f"  home after {report['stops']} stops\n")

    def rest(self) -> None:
        """Nothing goes on now."""
        if self._now is not None:
            self._now.stop()

    def _stop(self, report: Json, names: Mapping[str, str]) -> None:
        peer = names.get(report["peer"], report["peer"][:8])
        if "clients" in report:
            peer = f"{report['clients']} holders"
        self._out.print(
            f"  {peer:<9} lap {report['lap']}/{report['laps']}  layers {report['layers']:<8} "
            f"loss {report['loss_before']:.4f} -> {report['loss']:.4f}  "
            f"{data_size(report['came_bytes']):>9} came  {report['seconds']:5.1f} s",
            markup=False,
        )

    def closing(self, outcomes: list[Any], saved: Path | None) -> None:
        """The table, and where the model lies."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("way")
        for title in ("accuracy", "sent once", "on all links", "of FedAvg", "trainer peak", "time"):
            table.add_column(title, justify="right")
        fedavg = next((o for o in outcomes if o.mode == "fedavg"), None)
        for o in outcomes:
            moved = o.links_bytes > 0
            share = f"1/{fedavg.links_bytes / o.links_bytes:.1f}" if fedavg and moved else "-"
            table.add_row(
                o.mode,
                f"{o.accuracy:.2%}",
                data_size(o.once_bytes) if moved else "-",
                data_size(o.links_bytes) if moved else "-",
                share,
                data_size(o.peak_bytes),
                f"{o.seconds:.1f} s",
            )
        self._out.print(table)
        self.say("sent once: layer objects, from custodian to custodian.")
        self.say("on all links: every byte written to a link, headers and heartbeats included.")
        self.say("time: of the first way it includes the start of the trainers.")
        if saved is not None:
            self.say(f"The snake's model is in {saved}.")
