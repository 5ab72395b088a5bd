"""The figures of a report, from the lines that runs wrote: curves, loads, maps, label splits.

Rules of this file: every figure carries the numbers that it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mfd.cli import charts, maps
from mfd.cli.comparing import Cell, Json, Study
from mfd.cli.page import Figure
from mfd.cli.view import data_size
from mfd.topology import place

__all__ = ["Run", "Runs", "curves", "labels", "loads", "routes", "serpentines", "stats_of"]

SPENT = ("stops", "lap", "second", "links_bytes", "objects_bytes", "samples")
MAPS_MAX = 6  # plans whose serpentine and route are drawn


@dataclass(frozen=True, slots=True)
class Run:
    """A finished cell."""

    cell: Cell
    begin: Json
    lines: Sequence[Json]
    end: Json

    def of(self, kind: str) -> list[Json]:
        """Its lines of a kind, in order."""
        return [line for line in self.lines if line["kind"] == kind]

    @property
    def training(self) -> list[Json]:
        """What nodes trained."""
        return [line for line in self.of("work") if line["task"] == "train"]


Runs = Mapping[str, Sequence[Run]]
"""Finished runs by plan."""


def stats_of(values: Sequence[float]) -> tuple[float, float]:
    """Mean, and the population's standard deviation."""
    mean = sum(values) / len(values)
    return mean, (sum((v - mean) ** 2 for v in values) / len(values)) ** 0.5


# curves


def curves(study: Study, runs: Runs) -> list[Figure]:
    """Held-out accuracy and loss against everything that was spent."""
    labels = [label for label, found in runs.items() if found]
    points = {label: _points(runs[label]) for label in labels}
    several = max((len(found) for found in runs.values()), default=0) > 1
    spread = " Bands: one standard deviation over seeds." if several else ""
    asked = [
        (
            "stops",
            "accuracy",
            "stops of training",
            "A stop is a training at one holder; centralised: the samples of a lap.",
        ),
        ("links_bytes", "accuracy", "bytes on all links", "Real bytes, every link counted."),
        (
            "objects_bytes",
            "accuracy",
            "bytes of layer objects",
            "From custodian to custodian, counted once.",
        ),
        ("second", "accuracy", "virtual seconds", "Link times and the stated device."),
        ("samples", "accuracy", "samples seen", "All holders together."),
        ("links_bytes", "loss", "bytes on all links", "Mean cross entropy on held-out data."),
    ]
    made = []
    legend = charts.legend(list(runs), lines=True)
    for x, y, name, note in asked:
        bands = [
            charts.Band(label, [(p[x][0], p[y][0], p[y][1]) for p in points.get(label, [])])
            for label in runs
        ]
        picture = charts.lines(
            bands,
            x_name=name,
            y_name=f"held-out {y}",
            size=x.endswith("bytes"),
            percent=y == "accuracy",
        )
        rows = [
            [label, lap, *p[x], *p[y], len(runs[label])]
            for label in labels
            for lap, p in enumerate(points[label], 1)
        ]
        columns = ["plan", "measurement", x, f"{x}_sd", y, f"{y}_sd", "seeds"]
        title = f"{y.capitalize()} against {name}"
        made.append(
            Figure(
                f"{y}-{x}".replace("_", "-"), title, note + spread, legend + picture, columns, rows
            )
        )
    return made


def _points(found: Sequence[Run]) -> list[dict[str, tuple[float, float]]]:
    """Measurement by measurement: mean and spread over seeds of everything counted."""
    measured = [run.of("measured") for run in found]
    count = min(map(len, measured), default=0)
    keys = (*SPENT, "accuracy", "loss")
    return [
        {key: stats_of([each[i][key] for each in measured]) for key in keys} for i in range(count)
    ]


# loads


def loads(study: Study, runs: Runs) -> list[Figure]:
    """Traffic and memory, node by node."""
    peers = list(study.graph.nodes)
    holders = list(study.config["holders"])
    asked = [
        ("sent", "Bytes sent on links by each node", "Relays carry for others.", peers),
        ("received", "Layer objects that came to each node", "As encoded for the wire.", peers),
        (
            "state",
            "Model state in each trainer, largest stop",
            "By formula: all weights, gradient and moments of the layers trained; "
            "activations are not in it. A full first lap trains all layers.",
            holders,
        ),
        ("state-mean", "Model state in each trainer, mean stop", "The same formula.", holders),
        ("stored", "Layer objects on each node's disk", "The most at any news.", peers),
    ]
    made = []
    for key, title, note, names in asked:
        means: dict[str, list[float | None]] = {}
        rows = []
        for label, found in runs.items():
            each = [_load_of(run, key) for run in found]
            means[label] = []
            for name in names:
                values = [load.get(name, 0.0) for load in each if load is not None]
                means[label].append(stats_of(values)[0] if values else None)
                if values:
                    rows.append([label, name, *stats_of(values), len(values)])
        picture = charts.bars(names, means, x_name="bytes", size=True)
        columns = ["plan", "node", "bytes", "bytes_sd", "seeds"]
        legend = charts.legend(list(runs), shown={row[0] for row in rows})
        made.append(Figure(f"node-{key}", title, note, legend + picture, columns, rows))
    return made


def _load_of(run: Run, key: str) -> dict[str, float] | None:
    """Bytes by node; None where the run has no such thing."""
    load: dict[str, float] = defaultdict(float)
    if key == "state":
        for line in run.training:
            load[line["peer"]] = max(load[line["peer"]], line["state_bytes"])
        return {**load, **run.end.get("state_bytes", {})}
    if key == "state-mean":
        for line in run.training:
            count = sum(other["peer"] == line["peer"] for other in run.training)
            load[line["peer"]] += line["state_bytes"] / count
        return {**load, **run.end.get("state_bytes", {})}
    if "by_link" not in run.end:
        return None
    if key == "sent":
        for source, _, size in run.end["by_link"]:
            load[source] += size
        return dict(load)
    return dict(run.end[key])


# maps, of the first seed


def serpentines(study: Study, runs: Runs) -> list[Figure]:
    """Which layers each holder trained when, in the first seed."""
    holders = list(study.config["holders"])
    made = []
    for label, found in list(runs.items())[:MAPS_MAX]:
        if not found or not found[0].training:
            continue
        run = found[0]
        names = [name for name, _ in run.begin["layers"]]
        shown, rows = [], []
        for line in run.training:
            start, end = line["started_s"], line["started_s"] + line["seconds"]
            who = line["peer"]
            for low, high in line["trained"]:
                title = f"{who}, layers {low}:{high}, {start:.1f} to {end:.1f} s"
                shown.append(maps.Span(holders.index(who), low, high, start, end, title))
                rows.append([label, run.cell.seed, who, low, high, start, end, line["samples"]])
        picture = charts.legend(holders) + maps.spans(
            names, holders, shown, x_name="virtual seconds"
        )
        columns = ["plan", "seed", "node", "layer_low", "layer_high", "start_s", "end_s", "samples"]
        note = f"Seed {run.cell.seed}. A row is a layer, a lane in it a holder."
        made.append(Figure(f"layers-{label}", label, note, picture, columns, rows))
    return made


def routes(study: Study, runs: Runs) -> list[Figure]:
    """The network with its traffic and the way of the model, in the first seed."""
    graph = study.graph
    places = place(graph)
    made = []
    for label, found in list(runs.items())[:MAPS_MAX]:
        if not found or "by_link" not in found[0].end:
            continue
        run = found[0]
        both = {(e.a, e.b): 0.0 for e in graph.edges}
        for a, b, size in run.end["by_link"]:
            both[(a, b) if (a, b) in both else (b, a)] += size
        hops = _hops(run)
        filled = {name: f"{peer['samples']} samples" for name, peer in run.begin["peers"].items()}
        picture = maps.network(places, both, hops, told=data_size, filled=filled)
        rows = [["link", a, b, size] for a, b, size in run.end["by_link"]]
        rows += [["hop", a, b, count] for (a, b), count in sorted(hops.items())]
        note = (
            f"Seed {run.cell.seed}. Lines: links, as thick as the bytes on them. Arrows: from stop "
            "to stop."
        )
        columns = ["what", "from", "to", "bytes_or_times"]
        made.append(Figure(f"route-{label}", label, note, picture, columns, rows))
    return made


def _hops(run: Run) -> dict[tuple[str, str], int]:
    """How often each walker went from one stop to the next, by the two nodes."""
    ways: dict[str, list[str]] = defaultdict(list)
    for line in run.of("stop"):
        ways[line.get("walker", "")].append(line["peer"])
    hops: dict[tuple[str, str], int] = defaultdict(int)
    for way in ways.values():
        for a, b in pairwise(way):
            if a != b:
                hops[a, b] += 1
    return dict(hops)


def labels(study: Study, runs: Runs) -> list[Figure]:
    """What each holder got, seed by seed."""
    seen: dict[int, Run] = {}
    for found in runs.values():
        for run in found:
            seen.setdefault(run.cell.seed, run)
    made = []
    for seed, run in sorted(seen.items())[:MAPS_MAX]:
        peers = run.begin["peers"]
        names = sorted({name for peer in peers.values() for name in peer["labels"]}, key=_by_number)
        columns = names or ["samples"]
        counts = [
            [peer["labels"].get(name, 0) for name in names] if names else [peer["samples"]]
            for peer in peers.values()
        ]
        rows = [[seed, who, *row] for who, row in zip(peers, counts, strict=True)]
        picture = charts.cells(list(peers), columns, counts)
        note = "Samples of each label at each holder."
        made.append(
            Figure(
                f"labels-{seed}", f"Seed {seed}", note, picture, ["seed", "node", *columns], rows
            )
        )
    return made


def _by_number(text: str) -> tuple[int, Any]:
    return (0, int(text)) if text.isdecimal() else (1, text)
