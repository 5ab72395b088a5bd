"""The page of a report: one file, no script, nothing loaded from anywhere.

Rules of this file: everything that a user, a plan, a graph or a data set named is escaped.
"""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

__all__ = ["Figure", "csv_text", "page"]


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot, what it shows, and the numbers behind it."""

    name: str  # of the file beside it: NAME.csv
    title: str
    note: str
    picture: str  # SVG or HTML, escaped already
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    wide: bool = False


STYLE = """
:root{--bg:#fbfbfa;--card:#fff;--ink:#1d2327;--soft:#5a656d;--line:#dfe3e6;--grid:#e9ecee;
--cell:#f1f3f4;--link:#c3cad0;--c0:#0067a5;--c1:#d1530a;--c2:#00875f;--c3:#a8468a;--c4:#b8860b;--c5:#3a9bd1;
--c6:#7a6a3a;--c7:#6b7378;--on:#fff}
@media(prefers-color-scheme:dark){:root{--bg:#14181b;--card:#1c2226;--ink:#e6eaec;--soft:#9aa7af;
--line:#323b41;--grid:#2a3238;--cell:#242c31;--link:#4a565e;--c0:#5db4ee;--c1:#ff9257;--c2:#37c893;--c3:#e39ccb;
--c4:#f0bc4e;--c5:#8fd3f7;--c6:#cfc07d;--c7:#a9b4ba;--on:#10202b}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.6rem;line-height:1.25;margin:.3em 0;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:2em 0 .6em}
h3{font-size:1rem;margin:0}
p{margin:.3em 0}.soft,figcaption p,dd{color:var(--soft)}
figcaption p,.small-print{font-size:.88rem}
.grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr));gap:16px}
figure{margin:0;padding:14px 16px 10px;background:var(--card);border:1px solid var(--line);
border-radius:8px;min-width:0;display:flex;flex-direction:column}
figure.wide{grid-column:1/-1}
figure>svg{width:100%;height:auto;max-width:640px;margin:8px auto 0;display:block}
figure>a{margin-top:auto;padding-top:6px;font-size:.85rem;color:var(--c0);align-self:flex-end}
svg text{font-size:13px;fill:var(--ink);font-family:system-ui,sans-serif}
svg text.small{font-size:11px;fill:var(--soft)}svg text.num{fill:var(--ink)}
svg text.on{fill:var(--on)}
svg text.halo{paint-order:stroke;stroke:var(--card);stroke-width:4px;stroke-linejoin:round}
svg .grid{stroke:var(--grid);fill:none}svg .axis{stroke:var(--soft);fill:none}
svg .cell{fill:var(--cell)}svg .link{stroke:var(--link);fill:none;stroke-linecap:round}
svg .relay{fill:var(--card);stroke:var(--soft);stroke-width:2}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:8px 0 0;padding:0;
font-size:.88rem}.legend li{display:flex;align-items:center;gap:6px;overflow-wrap:anywhere}
.legend svg{flex:none}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums}
th,td{padding:7px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}th{color:var(--soft);font-weight:600;font-size:.84rem}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--card)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 16px;margin:.5em 0}
dt{font-weight:600}dd{margin:0;overflow-wrap:anywhere}
details{margin:1em 0}summary{cursor:pointer;font-weight:600}
pre{overflow:auto;max-height:480px;background:var(--card);border:1px solid var(--line);
border-radius:8px;padding:12px;font-size:.82rem}
.bad{border-left:4px solid var(--c1);padding:6px 12px;background:var(--card);overflow-wrap:anywhere}
@media(max-width:600px){svg text{font-size:15px}svg text.small{font-size:12.5px}
main{padding:12px 10px 40px}figure{padding:12px 10px 8px}
dl{grid-template-columns:1fr}dd{margin-bottom:.4em}}
"""
FORMULA = ("=", "+", "-", "@", "\t", "\r")
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table as CSV."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    for row in (columns, *rows):
        writer.writerow([_cell(value) for value in row])
    return file.getvalue()


def _cell(value: Any) -> Any:
    """A name that a spreadsheet would take for a formula is marked as text."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA) else value


def _figure(figure: Figure) -> str:
    data = base64.b64encode(csv_text(figure.columns, figure.rows).encode()).decode()
    wide = ' class="wide"' if figure.wide else ""
    name = escape(figure.name)
    return (
        f"<figure{wide}><figcaption><h3>{escape(figure.title)}</h3><p>{escape(figure.note)}</p>"
        f'</figcaption>{figure.picture}<a download="{name}.csv" '
        f'href="data:text/csv;base64,{data}">{name}.csv</a></figure>'
    )


def page(
    title: str,
    *,
    facts: Sequence[tuple[str, str]],
    table: str,
    notes: Sequence[tuple[str, str]],
    warnings: Sequence[str],
    sections: Sequence[tuple[str, Sequence[Figure]]],
    config: str,
) -> str:
    """The whole file. `table` is HTML already; all else is escaped here."""
    told, noted = (
        "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in pairs)
        for pairs in (facts, notes)
    )
    bad = "".join(f'<p class="bad">{escape(w)}</p>' for w in warnings)
    body = []
    for heading, figures in sections:
        if figures:
            inner = "".join(map(_figure, figures))
            body.append(f'<h2>{escape(heading)}</h2><div class="grid">{inner}</div>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{escape(title)}</h1><dl>{told}</dl>{bad}{table}"
        f'<dl class="small-print">{noted}</dl>{"".join(body)}'
        "<details><summary>Everything that was asked for (compare.json)</summary>"
        f"<pre>{escape(config)}</pre></details></main></body></html>\n"
    )
