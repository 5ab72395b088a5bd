"""What people read: tables, and one line a report. Programs read --json instead."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import IO, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = [
    "brief",
    "console",
    "data_size",
    "hop_line",
    "print_json",
    "print_table",
    "printable",
    "report_line",
    "span",
]

Json = dict[str, Any]

WIDTH_PLAIN = 200  # of tables that go into a pipe: nothing is cut off
ID_DIGITS = 64
# 7, 1.25, 3/12, 45.0%, 8 links, 0.01 ms, 5 Mbit/s: neither the beginning of an id nor an address
NUMBER = re.compile(r"\d+(\.\d+)?(/\d+|%)?( [A-Za-z]+(/[a-z]+)?)?")
BAD = {
    "corrupt",
    "disk",
    "equivocated",
    "fenced",
    "intake failed",
    "learning failed",
    "lost",
    "not measured",
    "refused",
    "silent",
    "unlinked",
    "unreachable",
}
GOOD = {"arrived", "measured", "merged", "stop"}
HIDDEN = {"n", "at", "kind"}


def console(file: IO[str] | None = None) -> Console:
    """A console that is coloured on a terminal and plain in a pipe."""
    file = file or sys.stdout
    return Console(file=file, highlight=False, width=None if file.isatty() else WIDTH_PLAIN)


def print_json(value: Any) -> None:
    """The form for programs: the same as the HTTP API gives."""
    print(json.dumps(value, indent=1))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], none: str) -> None:
    """Print rows under headings; numbers stand to the right. `none`: said where no row is."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if not rows:
        print(none)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, title in enumerate(columns):
        numeric = all(NUMBER.fullmatch(row[index]) for row in rows)
        table.add_column(title, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console().print(table)


def brief(text: str) -> str:
    """The first eight digits of an id; other text as it is."""
    return text[:8] if len(text) == ID_DIGITS and set(text) <= set("0123456789abcdef") else text


def data_size(count: float) -> str:
    """Bytes for people: 1.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def span(seconds: float) -> str:
    """A length of time for people."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def report_line(report: Json, whose: str = "") -> Text:
    """One report: time, kind, and what belongs to it; `whose` it is, if that must be told."""
    at = datetime.fromtimestamp(report.get("at", 0), tz=UTC).astimezone()
    kind = str(report.get("kind", ""))
    line = Text(f"{at:%H:%M:%S} {whose}", style="dim")
    style = "red" if kind in BAD else "green" if kind in GOOD else "cyan"
    line.append(f"{printable(kind):<16}", style=style)
    told = hop_line(report)
    line.append(told if told is not None else _fields(report))
    return line


def hop_line(report: Json) -> str | None:
    """The story of a walker's hop in one line; None for reports that are no part of it."""
    match report.get("kind"):
        case "stop":
            return _stop(report)
        case "measured":
            accuracy = _number(report.get("accuracy"), "{:.1%}")
            return (
                f"after lap {report.get('lap')}: accuracy {accuracy}, loss "
                f"{_number(report.get('loss'))}, by {brief(str(report.get('by', '')))}"
            )
        case "chosen":
            source, target = (brief(str(report.get(key, ""))) for key in ("peer", "target"))
            return f"{source} -> {target}: {printable(report.get('reason', ''))}"
        case "part":
            source, target = (brief(str(report.get(key, ""))) for key in ("peer", "target"))
            return f"{source} -> {target}: {printable(report.get('reason', ''))}"
        case "handed":
            source, target = (brief(str(report.get(key, ""))) for key in ("source", "target"))
            return (
                f"{source} -> {target}: {data_size(report.get('sent_bytes') or 0)} "
                f"in {_number(report.get('seconds'), '{:.2f}')} s, hop {report.get('hop')}"
            )
        case "merged":
            return _merged(report)
        case "skipped":
            return printable(report.get("reason", ""))
        case "parked":
            return f"at {brief(str(report.get('peer', '')))}: {printable(report.get('reason', ''))}"
        case "arrived":
            told = f"home after {report.get('stops')} stops, version {report.get('seq')}"
            count = report.get("siblings")
            return f"{told}, with what {count} siblings have learned" if count else told
    return None


def _merged(report: Json) -> str:
    """Where siblings met, with which weights, and who did not pass the gate."""
    peer, names = brief(str(report.get("peer", ""))), printable(report.get("with", ""))
    out = printable(report.get("left_out", ""))
    own = _number(report.get("own"), "{:.2f}")
    told = f"{peer}  itself (weight {own}) with {names}" if names else f"{peer}  with nobody"
    return f"{told}; left out: {out}" if out else told


def _stop(report: Json) -> str:
    clients = report.get("clients")
    place = f"{clients} clients" if clients else brief(str(report.get("peer", "")))
    if parts := report.get("parts"):
        place += f", {printable(parts)} of them a part"
    if by := report.get("by"):
        place = f"{brief(str(by))} for {place}"
    return (
        f"{place}  lap {report.get('lap')}/{report.get('laps')}  layers "
        f"{printable(report.get('layers', ''))}  loss {_number(report.get('loss_before'))} -> "
        f"{_number(report.get('loss'))}  came {data_size(report.get('came_bytes') or 0)}  "
        f"{_number(report.get('samples'), '{:.0f}')} samples in "
        f"{_number(report.get('seconds'), '{:.1f}')} s{_part(report)}"
    )


def _part(report: Json) -> str:
    """Say which version inside the model was trained, and what draws it had besides."""
    parts = [f"width {width:g}" for width in (_float(report, "width"),) if 0 < width < 1]
    cuts = ((name, _float(report, name)) for name in ("depth", "bits"))
    parts += [f"{name} {number:g}" for name, number in cuts if number]
    said = f"  trained as {', '.join(parts)}" if parts else ""
    if "replayed" in report:
        told = _float(report, "replayed")
        said += f"  draws of {told:.0f} classes" if told else "  no classes told of, so no draws"
    return said


def _float(report: Json, key: str) -> float:
    value = report.get(key)
    return float(value) if isinstance(value, int | float) else 0.0


def _number(value: Any, form: str = "{:.4f}") -> str:
    return form.format(value) if isinstance(value, int | float) else "-"


def _fields(report: Json) -> str:
    pairs = ((k, v) for k, v in report.items() if k not in HIDDEN)
    return "  ".join(
        f"{k}={brief(_place(v) if k == 'address' else printable(v))}" for k, v in pairs
    )


def _place(address: object) -> str:
    """Of a join line host and port alone: the peer is told beside it."""
    return printable(address).removeprefix("mfd://").partition("/")[0]


def printable(value: Any) -> str:
    """Text of strangers goes to a terminal: no control characters."""
    return "".join(c if c.isprintable() else "?" for c in str(value))
