"""`mfd report`: a page and CSV files from the lines that the runs of a comparison wrote.

Rules of this file: it reads and shows; means and spreads are over the seeds that are finished, the
spread is the population's standard deviation.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from math import exp
from pathlib import Path

from mfd.cli import charts, figures
from mfd.cli.comparing import Study, read_lines
from mfd.cli.contest import uneven_samples
from mfd.cli.figures import Run, Runs, stats_of
from mfd.cli.page import csv_text, page
from mfd.cli.view import data_size

__all__ = ["write"]

NOTES = [
    (
        "Accuracy",
        "on the held-out data, after the last lap: mean over the seeds, and one standard deviation",
    ),
    (
        "On links",
        "every byte on every link: headers, heartbeats, routes, and each hop again; "
        "centralised: the samples as stored, on every link of the shortest way home",
    ),
    (
        "Objects",
        "layers as encoded for the wire, once from custodian to custodian, verification and "
        "the way home included; centralised: the samples as stored, once",
    ),
]
TAUGHT = (
    "Residents",
    "where a plan teaches models of the holders' own, their mean accuracy; accuracy is then that "
    "of the proxy that travels, or the residents' where no model does; in mode alone they learn by "
    "themselves",
)


def write(study: Study) -> Path:
    """Write report.html and csv/*.csv; return the page's path."""
    runs = _load(study)
    sections = [
        ("What it cost to learn", figures.curves(study, runs)),
        ("Who carried it", figures.loads(study, runs)),
        ("Which layer learned where and when", figures.serpentines(study, runs)),
        ("The way of the model", figures.routes(study, runs)),
        ("Who has which labels", figures.labels(study, runs)),
    ]
    folder = study.folder / "csv"
    folder.mkdir(exist_ok=True)
    for _, made in sections:
        for figure in made:
            text = csv_text(figure.columns, figure.rows)
            (folder / f"{figure.name}.csv").write_text(text, encoding="utf-8")
    html = page(
        f"{study.folder.absolute().name}: {', '.join(study.config['plans'])}",
        facts=_facts(study, runs),
        table=_table(study, runs, folder),
        notes=[*NOTES, TAUGHT] if _teaches(runs) else NOTES,
        warnings=[*_missing(study, runs), *_uneven(runs)],
        sections=sections,
        config=json.dumps(study.config, indent=1),
    )
    path = study.folder / "report.html"
    draft = path.with_suffix(".new")
    draft.write_text(html, encoding="utf-8")
    draft.replace(path)
    return path


def _load(study: Study) -> dict[str, list[Run]]:
    """Finished runs by label, in order of the plans."""
    runs: dict[str, list[Run]] = {label: [] for label in study.config["plans"]}
    for cell in study.cells:
        if study.outcome(cell) is not None:
            begin, *lines, end = read_lines(study.metrics(cell))
            runs[cell.label].append(Run(cell, begin, lines, end))
    return runs


def _missing(study: Study, runs: Runs) -> list[str]:
    done = {run.cell for found in runs.values() for run in found}
    told = []
    for cell in study.cells:
        if cell not in done:
            last = next(reversed(list(read_lines(study.metrics(cell)))), {})
            failed = last.get("kind") == "failed"
            told.append(f"{cell}: {'failed: ' + last['reason'] if failed else 'not finished'}")
    return told


def _uneven(runs: Runs) -> list[str]:
    means = {k: stats_of([run.end["samples"] for run in v])[0] for k, v in runs.items() if v}
    told = uneven_samples([{"plan": k, "samples": mean} for k, mean in means.items()])
    return [told] if told else []


def _facts(study: Study, runs: Runs) -> list[tuple[str, str]]:
    config = study.config
    first = next((run for found in runs.values() for run in found), None)
    flops = config["device"]["flops"]
    device = (
        f"{flops:g} FLOP/s"
        if flops
        else f"{config['device']['samples_per_s']:g} samples/s training, thrice that measuring"
    )
    model = ""
    if first is not None:
        recipe = first.begin["plan"]["recipe"]
        size = data_size(sum(size for _, size in first.begin["layers"]))
        model = f"{recipe.get('zoo', 'model')}, {len(first.begin['layers'])} layers, {size}"
    graph = study.graph
    return [
        (
            "Data",
            f"{config['data']}, dealt out {config['partition'] or 'evenly'}; "
            f"test: {config['test']}",
        ),
        ("Model", model),
        (
            "Network",
            f"{len(graph.nodes)} nodes, {len(graph.edges)} links, {len(config['holders'])} hold "
            f"data; home {config['home']}",
        ),
        ("Device", f"{device}, times a node's speed; link times by latency and bandwidth"),
        ("Plans", "; ".join(f"{k}: {_told(table)}" for k, table in config["plans"].items())),
        ("Seeds", ", ".join(map(str, config["seeds"]))),
    ]


def _told(table: Mapping[str, object]) -> str:
    """What a plan says, but for what the page tells of all of them."""
    common = ("recipe", "names", "verify", "learn", "seed", "task", "min_holders", "mode")
    fields = {key: value for key, value in table.items() if key not in common}
    learn = table.get("learn")
    fields |= learn if isinstance(learn, dict) else {}
    told = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in fields.items()}
    return ", ".join([str(table.get("mode", "")), *(f"{k}={v}" for k, v in told.items())])


def _teaches(runs: Runs) -> bool:
    return any("residents_accuracy" in run.end for found in runs.values() for run in found)


def _language(study: Study) -> bool:
    return any(table.get("task") == "language" for table in study.config["plans"].values())


def _table(study: Study, runs: Runs, folder: Path) -> str:
    keys = ("accuracy", "loss", "links_bytes", "objects_bytes", "samples", "stops", "second")
    columns = ["plan", "mode", "seeds", *(f"{k}{end}" for k in keys for end in ("", "_sd"))]
    rows, shown = [], []
    fedavg = next((r for r in runs.values() if r and r[0].begin["plan"]["mode"] == "fedavg"), None)
    for i, (label, found) in enumerate(runs.items()):
        if not found:
            continue
        stats = {key: stats_of([run.end[key] for run in found]) for key in keys}
        mode = found[0].begin["plan"]["mode"]
        rows.append([label, mode, len(found), *(v for key in keys for v in stats[key])])
        links = stats["links_bytes"][0]
        share = []
        if fedavg:
            whole = stats_of([r.end["links_bytes"] for r in fedavg])[0]
            share = [f"{links / whole:.2f}" if links and whole else "-"]
        swatch = (
            '<svg width="12" height="12"><rect width="12" height="12" rx="2" '
            f'fill="{charts.colour(i)}"/></svg> '
        )
        taught = [run.end["residents_accuracy"] for run in found if "residents_accuracy" in run.end]
        residents = [f"{100 * stats_of(taught)[0]:.2f}" if taught else "-"]
        told = [
            f"{100 * stats['accuracy'][0]:.2f}"
            + (f" &plusmn; {100 * stats['accuracy'][1]:.2f}" if len(found) > 1 else ""),
            f"{min(100 * run.end['accuracy'] for run in found):.2f}",
            *(residents if _teaches(runs) else []),
            f"{exp(min(stats['loss'][0], 50)):.2f}"
            if _language(study)
            else f"{stats['loss'][0]:.3f}",
            data_size(links),
            *share,
            data_size(stats["objects_bytes"][0]),
            f"{stats['samples'][0]:,.0f}",
            f"{stats['stops'][0]:,.0f}",
            f"{stats['second'][0]:,.1f}",
            str(len(found)),
        ]
        cells = "".join(f"<td>{cell}</td>" for cell in told)
        shown.append(f"<tr><td>{swatch}{escape(label)}</td>{cells}</tr>")
    (folder / "summary.csv").write_text(csv_text(columns, rows), encoding="utf-8")
    loss = "perplexity" if _language(study) else "loss"
    heads = ["plan", "accuracy %", "worst seed"]
    heads += [*(["residents %"] if _teaches(runs) else []), loss, "on links"]
    heads += ["of FedAvg's"] if fedavg else []
    heads += ["objects", "samples", "stops", "virtual s", "seeds"]
    head = "".join(f"<th>{h}</th>" for h in heads)
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(shown)}</table></div>'
