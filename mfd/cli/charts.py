"""Charts as SVG text that follows the page's colours: lines with bands, bars, cells, spans, nets.

Rules of this file: text and numbers in, text out; everything that a user or a file named is escaped.
Colours are the page's variables, so that one picture serves light and dark.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

__all__ = [
    "COLOURS",
    "Band",
    "Span",
    "bars",
    "cells",
    "colour",
    "legend",
    "lines",
    "network",
    "spans",
]

COLOURS = 8  # variables --c0 .. --c7 of the page
WIDTH, LEFT, RIGHT, TOP, BOTTOM = 480, 58, 14, 10, 44
LINES_HIGH = 300
DASHES = ("", "7 4", "2 3")  # beyond so many colours
LOG_FROM = 12.0  # an axis whose ends are so far apart is logarithmic
UNITS = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))


@dataclass(frozen=True, slots=True)
class Band:
    """A line: points (x, y, spread below and above y)."""

    name: str
    points: Sequence[tuple[float, float, float]]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that went on in rows `low` to `high` (not included), in one lane of each."""

    lane: int
    low: int
    high: int
    start: float
    end: float
    title: str


def colour(index: int) -> str:
    """The colour of the index-th of whatever is told apart."""
    return f"var(--c{index % COLOURS})"


def legend(names: Sequence[str], *, lines: bool = False) -> str:
    """What the colours mean, as HTML."""
    items = []
    for i, name in enumerate(names):
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


def _svg(height: float, body: Sequence[str], title: str, width: float = WIDTH) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"{''.join(body)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str = "middle", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(text)}</text>'


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


def _number(value: float) -> str:
    if abs(value) >= 1e5:
        return f"{value / 1e6:g} M" if abs(value) >= 1e6 else f"{value / 1e3:g} k"
    return f"{value:.10g}" if abs(value) < 1e3 else f"{value:,.0f}"


@dataclass(frozen=True, slots=True)
class _Axis:
    """Where values lie between two places."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        if self.log:
            value, low, high = log10(max(value, self.low)), log10(self.low), log10(self.high)
        else:
            low, high = self.low, self.high
        return self.start + (self.end - self.start) * (value - low) / ((high - low) or 1.0)

    def marks(self) -> list[float]:
        return _decades(self.low, self.high) if self.log else _nice(self.low, self.high)


def _unit(values: Sequence[float], *, size: bool) -> tuple[float, str]:
    """By what values are divided for reading, and the unit's name."""
    most = max(values, default=0.0)
    return next(((float(u), n) for u, n in UNITS if most >= 2 * u), (1.0, "B")) if size else (1.0, "")


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
    x_axis = _Axis(x_low, max(xs) * (1.15 if log else 1.03), LEFT, WIDTH - RIGHT, log)
    y_low = max(min(ys) - margin, 0.0) if min(ys) >= 0 else min(ys) - margin
    y_high = min(max(ys) + margin, 100.0) if percent else max(ys) + margin
    y_axis = _Axis(y_low, y_high, LINES_HIGH - BOTTOM, TOP)
    body = _frame(x_axis, y_axis, percent=percent)
    body.append(_text((LEFT + WIDTH) / 2, LINES_HIGH - 8, x_name + (unit_name and f" ({unit_name})")))
    body.append(
        _text(0, 0, y_name, extra=f' transform="translate(13 {LINES_HIGH / 2 - 15:g}) rotate(-90)"')
    )
    order = [bands.index(b) for b in shown]
    for index, points in zip(order, table, strict=True):
        body += _line(points, x_axis, y_axis, index, bands[index].name)
    return _svg(LINES_HIGH, body, f"{y_name} against {x_name}")


def _frame(x_axis: _Axis, y_axis: _Axis, *, percent: bool) -> list[str]:
    body = []
    for mark in y_axis.marks():
        y = y_axis.at(mark)
        body.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        body.append(_text(LEFT - 6, y + 4, f"{mark:.10g}{'%' * percent}", "end"))
    for mark in x_axis.marks():
        x = x_axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} {y_axis.end:g}V{y_axis.start:g}"/>')
        body.append(_text(x, y_axis.start + 17, _number(mark)))
    body.append(f'<path class="axis" d="M{LEFT} {y_axis.end:g}V{y_axis.start:g}H{WIDTH - RIGHT}"/>')
    return body


def _line(
    points: Sequence[tuple[float, float, float]],
    x_axis: _Axis,
    y_axis: _Axis,
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
    thick = 11 if len(series) <= 4 else 8
    gap = 12
    high = len(series) * thick + gap
    left = min(140, 20 + 7 * max(map(len, groups), default=0))
    everything = [v for values in series.values() for v in values if v is not None]
    unit, unit_name = _unit(everything, size=size)
    most = max(everything, default=1.0) / unit or 1.0
    bottom = len(groups) * high + 6
    axis = _Axis(0.0, most * 1.02, left, WIDTH - RIGHT)
    body = []
    for mark in axis.marks():
        x = axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} 0V{bottom}"/>')
        body.append(_text(x, bottom + 16, _number(mark)))
    for row, group in enumerate(groups):
        top = row * high + gap / 2
        middle = top + len(series) * thick / 2 + 4
        body.append(_text(left - 6, middle, _short(group, left - 10), "end"))
        for i, (name, values) in enumerate(series.items()):
            value = values[row]
            if value is None:
                continue
            told = f"{escape(group)}, {escape(name)}: {value / unit:.4g} {unit_name}"
            body.append(
                f'<rect x="{left}" y="{top + i * thick:.1f}" height="{thick - 2}" rx="1.5" '
                f'width="{max(1.0, axis.at(value / unit) - left):.1f}" fill="{colour(i)}">'
                f"<title>{told}</title></rect>"
            )
    body.append(_text((left + WIDTH) / 2, bottom + 35, x_name + (unit_name and f" ({unit_name})")))
    return _svg(bottom + 42, body, x_name)


def _short(text: str, pixels: float) -> str:
    room = max(3, int(pixels / 6.6))
    return text if len(text) <= room else text[: room - 2] + ".."


def cells(rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A table whose cells are the darker the more they count."""
    left = min(130, 20 + 7 * max(map(len, rows), default=0))
    right = 52
    wide = (WIDTH - left - right) / max(1, len(columns))
    high = 26
    most = max((c for row in counts for c in row), default=1) or 1
    small = ' class="small"'
    step = -(-len(columns) // 20)
    body = [
        _text(left + (i + 0.5) * wide, 14, _short(name, max(wide, 20)), extra=small)
        for i, name in enumerate(columns)
        if i % step == 0
    ]
    body.append(_text(WIDTH - 2, 14, "all", "end", small))
    for j, (name, row) in enumerate(zip(rows, counts, strict=True)):
        y = 20 + j * high
        body.append(_text(left - 6, y + 17, _short(name, left - 10), "end"))
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
                strong = ' class="small on"' if share > 0.55 else small
                body.append(_text(x + wide / 2, y + 16, f"{count}", extra=strong))
        body.append(_text(WIDTH - 2, y + 17, f"{sum(row)}", "end", small))
    return _svg(24 + len(rows) * high, body, "samples by holder and label")


# what went on when, and where


def spans(rows: Sequence[str], lanes: Sequence[str], found: Sequence[Span], *, x_name: str) -> str:
    """Rows of lanes over time."""
    high = max(16, min(34, 5 * len(lanes)))
    lane = (high - 3) / max(1, len(lanes))
    left = min(110, 20 + 7 * max(map(len, rows), default=0))
    bottom = len(rows) * high + 4
    axis = _Axis(0.0, max((s.end for s in found), default=1.0) or 1.0, left, WIDTH - RIGHT)
    body = []
    for i, name in enumerate(rows):
        body.append(
            f'<rect x="{left}" y="{i * high + 2}" width="{WIDTH - RIGHT - left}" '
            f'height="{high - 3}" class="cell"/>'
        )
        body.append(_text(left - 6, i * high + high / 2 + 5, _short(name, left - 10), "end"))
    for mark in axis.marks():
        x = axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} 0V{bottom}"/>')
        body.append(_text(x, bottom + 16, _number(mark)))
    for span in found:
        x, width = axis.at(span.start), max(1.0, axis.at(span.end) - axis.at(span.start))
        parts = [
            f'<rect x="{x:.1f}" y="{row * high + 2 + span.lane * lane:.1f}" width="{width:.1f}" '
            f'height="{lane:.1f}"/>'
            for row in range(span.low, span.high)
        ]
        title = f"<title>{escape(span.title)}</title>"
        body.append(f'<g fill="{colour(span.lane)}">{title}{"".join(parts)}</g>')
    body.append(_text((left + WIDTH) / 2, bottom + 35, x_name))
    return _svg(bottom + 42, body, f"layers against {x_name}")


def network(
    places: Mapping[str, tuple[float, float]],
    links: Mapping[tuple[str, str], float],
    hops: Mapping[tuple[str, str], int],
    *,
    told: Callable[[float], str],
    filled: Mapping[str, str],
) -> str:
    """A graph with links as thick as what they carried, and arrows where the model went.

    `filled`: nodes that hold data, and what is said of each; `told` puts a link's load in words.
    """
    high = max((y for _, y in places.values()), default=0.0)
    height = 90 + 330 * max(0.3, min(1.0, high))
    at = {
        n: (50 + x * (WIDTH - 100), 40 + (y / high if high > 0.02 else 0.5) * (height - 80))
        for n, (x, y) in places.items()
    }
    most = max(links.values(), default=0.0) or 1.0
    body = [
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="5" '
        'markerHeight="5" orient="auto"><path d="M0 0L8 4L0 8Z" fill="var(--c1)"/></marker></defs>'
    ]
    for (a, b), load in links.items():
        (ax, ay), (bx, by) = at[a], at[b]
        width = 1 + 9 * (load / most) ** 0.5
        title = f"<title>{escape(a)} - {escape(b)}: {escape(told(load))}</title>"
        body.append(
            f'<path class="link" d="M{ax:.1f} {ay:.1f}L{bx:.1f} {by:.1f}" '
            f'stroke-width="{width:.1f}">{title}</path>'
        )
    for (a, b), count in hops.items():
        (ax, ay), (bx, by) = at[a], at[b]
        mx, my = (ax + bx) / 2 - (by - ay) * 0.18, (ay + by) / 2 + (bx - ax) * 0.18
        ends = [_towards((ax, ay), (mx, my), 15), _towards((bx, by), (mx, my), 15)]
        title = f"<title>{escape(a)} to {escape(b)}: {count} times</title>"
        body.append(
            f'<path d="M{ends[0]}Q{mx:.1f} {my:.1f} {ends[1]}" fill="none" stroke="var(--c1)" '
            f'stroke-width="{1 + min(count, 8) * 0.35:.2f}" marker-end="url(#tip)">{title}</path>'
        )
    for name, (x, y) in at.items():
        looks = 'fill="var(--c0)"' if name in filled else 'class="relay"'
        title = f"<title>{escape(name)}: {escape(filled.get(name, 'relay'))}</title>"
        body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="11" {looks}>{title}</circle>')
        body.append(_text(x, y - 16, name, extra=' class="halo"'))
    return _svg(height, body, "the network and the way of the model")


def _towards(a: tuple[float, float], b: tuple[float, float], by: float) -> str:
    apart = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5 or 1.0
    return f"{a[0] + (b[0] - a[0]) * by / apart:.1f} {a[1] + (b[1] - a[1]) * by / apart:.1f}"
