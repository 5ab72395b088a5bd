"""Charts as SVG text that follows the page's colours: lines with bands, bars, cells, spans, nets.

Rules of this file: text and numbers in, text out; what a user or a file named is escaped.
Colours are the page's variables, so that one picture serves light and dark.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

__all__ = [
    "COLOURS",
    "RIGHT",
    "WIDTH",
    "Axis",
    "Band",
    "bars",
    "cells",
    "colour",
    "legend",
    "lines",
    "number",
    "room_for",
    "short",
    "svg",
    "text",
]

COLOURS = 8  # variables --c0 .. --c7 of the page
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 480, 58, 14, 10, 44
LINES_HIGH = 300
LETTER = 8.2  # width of one, as large as text is on a phone
DASHES = ("", "7 4", "2 3")  # beyond so many colours
LOG_FROM = 12.0  # an axis whose ends are so far apart is logarithmic
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Band:
    """A line: points (x, y, spread below and above y)."""

    name: str
    points: Sequence[tuple[float, float, float]]


def colour(index: int) -> str:
    """The colour of the index-th of whatever is told apart."""
    return f"var(--c{index % COLOURS})"


def legend(
    names: Sequence[str], *, lines: bool = False, shown: Collection[str] | None = None
) -> str:
    """What the colours mean, as HTML; `shown`: only of these."""
    items = []
    for i, name in enumerate(names):
        if shown is not None and name not in shown:
            continue
        dash = DASHES[i // COLOURS % len(DASHES)]
        mark = (
            f'<line x1="0" y1="6" x2="22" y2="6" stroke="{colour(i)}" stroke-width="3" '
            f'stroke-dasharray="{dash}"/>'
            if lines
            else f'<rect width="12" height="12" rx="2" fill="{colour(i)}"/>'
        )
        width = 22 if lines else 12
        items.append(f'<li><svg width="{width}" height="12">{mark}</svg>{escape(name)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def svg(height: float, body: Sequence[str], title: str, width: float = WIDTH) -> str:
    """A picture that fits the width it is given; `body` is escaped already."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def text(x: float, y: float, words: str, anchor: str = "middle", extra: str = "") -> str:
    """Words at a place, escaped."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


# axes


def _nice(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within low..high."""
    span = high - low or abs(high) or 1.0
    raw = span / count
    base = 10.0 ** floor(log10(raw))
    step = next(base * m for m in (1, 2, 2.5, 5, 10) if base * m >= raw * 0.999)
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    marks = (1, 2, 5) if high / low < 300 else (1,)
    exponents = range(floor(log10(low)), ceil(log10(high)) + 1)
    return [m * 10.0**e for e in exponents for m in marks if low <= m * 10.0**e <= high]


def number(value: float) -> str:
    """A number on an axis."""
    if abs(value) >= 1e5:
        return f"{value / 1e6:g} M" if abs(value) >= 1e6 else f"{value / 1e3:g} k"
    return f"{value:.10g}" if abs(value) < 1e3 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class Axis:
    """Where values lie between two places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The place of a value."""
        if self.log:
            value, low, high = log10(max(value, self.low)), log10(self.low), log10(self.high)
        else:
            low, high = self.low, self.high
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)

    def marks(self) -> list[float]:
        """Round values along it."""
        return _decades(self.low, self.high) if self.log else _nice(self.low, self.high)


def _unit(values: Sequence[float], *, size: bool) -> tuple[float, str]:
    """By what values are divided for reading, and the unit's name."""
    most = max(values, default=0.0)
    known = ((float(size), name) for size, name in UNITS if most >= 2 * size)
    return next(known, (1.0, "B")) if size else (1.0, "")


# lines


def lines(
    bands: Sequence[Band],
    *,
    x_name: str,
    y_name: str,
    size: bool = False,
    percent: bool = False,
) -> str:
    """Lines over numbers, with their spread. `size`: x counts bytes; `percent`: y is a share.

    A line at x = 0 throughout is drawn as a level over all; one at a single other x as a point.
    """
    shown = [b for b in bands if b.points]
    unit, unit_name = _unit([p[0] for b in shown for p in b.points], size=size)
    scale = 100.0 if percent else 1.0
    table = [[(x / unit, y * scale, s * scale) for x, y, s in b.points] for b in shown]
    xs = [x for points in table for x, _, _ in points if x > 0] or [1.0]
    ys = [v for points in table for _, y, s in points for v in (y - s, y + s)] or [0.0, 1.0]
    log = size and max(xs) / min(xs) > LOG_FROM
    margin = 0.06 * ((max(ys) - min(ys)) or 1.0)
    x_low = min(xs) / 1.15 if log else 0.0
    x_axis = Axis(x_low, max(xs) * (1.15 if log else 1.03), LEFT, WIDTH - RIGHT, log)
    y_low = max(min(ys) - margin, 0.0) if min(ys) >= 0 else min(ys) - margin
    y_high = min(max(ys) + margin, 100.0) if percent else max(ys) + margin
    y_axis = Axis(y_low, y_high, LINES_HIGH - BOTTOM, TOP)
    body = _frame(x_axis, y_axis, percent=percent)
    body.append(
        text((LEFT + WIDTH) / 2, LINES_HIGH - 8, x_name + (unit_name and f" ({unit_name})"))
    )
    body.append(
        text(0, 0, y_name, extra=f' transform="translate(13 {LINES_HIGH / 2 - 15:g}) rotate(-90)"')
    )
    order = [bands.index(b) for b in shown]
    for index, points in zip(order, table, strict=True):
        body += _line(points, x_axis, y_axis, index, bands[index].name)
    return svg(LINES_HIGH, body, f"{y_name} against {x_name}")


def _frame(x_axis: Axis, y_axis: Axis, *, percent: bool) -> list[str]:
    body = []
    for mark in y_axis.marks():
        y = y_axis.at(mark)
        body.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        body.append(text(LEFT - 6, y + 4, f"{mark:.10g}{'%' * percent}", "end"))
    for mark in x_axis.marks():
        x = x_axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} {y_axis.end:g}V{y_axis.start:g}"/>')
        body.append(text(x, y_axis.start + 17, number(mark)))
    body.append(f'<path class="axis" d="M{LEFT} {y_axis.end:g}V{y_axis.start:g}H{WIDTH - RIGHT}"/>')
    return body


def _line(
    points: Sequence[tuple[float, float, float]],
    x_axis: Axis,
    y_axis: Axis,
    index: int,
    name: str,
) -> list[str]:
    dash = DASHES[index // COLOURS % len(DASHES)]
    stroke = f'stroke="{colour(index)}" stroke-width="2.2" fill="none"'
    last_x, last_y, last_s = points[-1]
    told = f"<title>{escape(name)}: {last_y:.2f} +- {last_s:.2f} at {last_x:.4g}</title>"
    if len(points) > 1 and len({x for x, _, _ in points}) == 1:
        points = points[-1:]
    if points[0][0] <= 0 and len(points) == 1:
        y = y_axis.at(last_y)
        path = f'd="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"'
        return [f'<path {path} {stroke} stroke-dasharray="2 5">{told}</path>']
    at = [(x_axis.at(x), y_axis.at(y), y_axis.at(y - s), y_axis.at(y + s)) for x, y, s in points]
    body = []
    if any(s for _, _, s in points):
        edge = [f"{x:.1f} {low:.1f}" for x, _, low, _ in at]
        edge += [f"{x:.1f} {high:.1f}" for x, _, _, high in reversed(at)]
        if len(at) == 1:
            body.append(f'<path d="M{edge[0]}L{edge[1]}" {stroke}/>')
        else:
            body.append(f'<path d="M{"L".join(edge)}Z" fill="{colour(index)}" opacity="0.16"/>')
    way = "L".join(f"{x:.1f} {y:.1f}" for x, y, _, _ in at)
    body.append(f'<path d="M{way}" {stroke} stroke-dasharray="{dash}">{told}</path>')
    radius = 2.6 if len(at) > 1 else 5
    body += [
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour(index)}">'
        f"<title>{escape(name)}: {p[1]:.2f} at {p[0]:.4g}</title></circle>"
        for (x, y, _, _), p in zip(at, points, strict=True)
    ]
    return body


# bars, cells


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    x_name: str,
    size: bool = False,
) -> str:
    """Horizontal bars, a group a row; the index of a series is that of its colour."""
    shown = [i for i, values in enumerate(series.values()) if any(v is not None for v in values)]
    thick = 11 if len(shown) <= 4 else 8
    gap = 12
    high = len(shown) * thick + gap
    left = room_for(groups)
    everything = [v for values in series.values() for v in values if v is not None]
    unit, unit_name = _unit(everything, size=size)
    most = max(everything, default=1.0) / unit or 1.0
    bottom = len(groups) * high + 6
    axis = Axis(0.0, most * 1.02, left, WIDTH - RIGHT)
    body = []
    for mark in axis.marks():
        x = axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} 0V{bottom}"/>')
        body.append(text(x, bottom + 16, number(mark)))
    for row, group in enumerate(groups):
        top = row * high + gap / 2
        middle = top + len(shown) * thick / 2 + 4
        body.append(text(left - 6, middle, short(group, left - 8), "end"))
        for i, (name, values) in enumerate(series.items()):
            value = values[row]
            if value is None:
                continue
            told = f"{escape(group)}, {escape(name)}: {value / unit:.4g} {unit_name}"
            y = top + shown.index(i) * thick
            body.append(
                f'<rect x="{left}" y="{y:.1f}" height="{thick - 2}" rx="1.5" '
                f'width="{max(1.0, axis.at(value / unit) - left):.1f}" fill="{colour(i)}">'
                f"<title>{told}</title></rect>"
            )
    body.append(text((left + WIDTH) / 2, bottom + 35, x_name + (unit_name and f" ({unit_name})")))
    return svg(bottom + 42, body, x_name)


def room_for(names: Sequence[str]) -> float:
    """How wide a column of names is."""
    return min(150.0, 16 + LETTER * max(map(len, names), default=0))


def short(words: str, pixels: float) -> str:
    """Words cut to about so many pixels."""
    room = max(3, int(pixels / LETTER))
    return words if len(words) <= room else words[: room - 2] + ".."


def cells(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A table whose cells are the darker the more they count."""
    left = room_for(rows)
    right = 52
    wide = (WIDTH - left - right) / max(1, len(columns))
    high = 26
    most = max((c for row in counts for c in row), default=1) or 1
    small = ' class="small"'
    step = -(-len(columns) // 20)
    body = [
        text(left + (i + 0.5) * wide, 14, short(name, max(wide, 20)), extra=small)
        for i, name in enumerate(columns)
        if i % step == 0
    ]
    body.append(text(WIDTH - 2, 14, "all", "end", small))
    for j, (name, row) in enumerate(zip(rows, counts, strict=True)):
        y = 20 + j * high
        body.append(text(left - 6, y + 17, short(name, left - 8), "end"))
        for i, count in enumerate(row):
            x = left + i * wide
            share = 0.0 if not count else 0.12 + 0.88 * count / most
            body.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide - 1:.1f}" height="{high - 2}" rx="2" '
                f'class="cell" /><rect x="{x:.1f}" y="{y}" width="{wide - 1:.1f}" '
                f'height="{high - 2}" rx="2" fill="var(--c0)" opacity="{share:.3f}">'
                f"<title>{escape(name)}, {escape(columns[i])}: {count}</title></rect>"
            )
            if count and wide >= 24:
                strong = f' class="small {"on" if share > 0.55 else "num"}"'
                body.append(text(x + wide / 2, y + 16, f"{count}", extra=strong))
        body.append(text(WIDTH - 2, y + 17, f"{sum(row)}", "end", small))
    return svg(24 + len(rows) * high, body, "samples by holder and label")
