"""Maps as SVG text: what went on in which row when, and what went where on a graph.

Rules of this file: as in charts.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from mfd.cli import charts

__all__ = ["Span", "network", "spans"]


@dataclass(frozen=True, slots=True)
class Span:
    """Something that went on in rows `low` to `high` (not included), in one lane of each."""

    lane: int
    low: int
    high: int
    start: float
    end: float
    title: str


def spans(rows: Sequence[str], lanes: Sequence[str], found: Sequence[Span], *, x_name: str) -> str:
    """Rows of lanes over time."""
    high = max(16, min(34, 5 * len(lanes)))
    lane = (high - 3) / max(1, len(lanes))
    left = charts.room_for(rows)
    bottom = len(rows) * high + 4
    axis = charts.Axis(
        0.0, max((s.end for s in found), default=1.0) or 1.0, left, charts.WIDTH - charts.RIGHT
    )
    body = []
    for i, name in enumerate(rows):
        body.append(
            f'<rect x="{left}" y="{i * high + 2}" width="{charts.WIDTH - charts.RIGHT - left}" '
            f'height="{high - 3}" class="cell"/>'
        )
        body.append(
            charts.text(left - 6, i * high + high / 2 + 5, charts.short(name, left - 8), "end")
        )
    for mark in axis.marks():
        x = axis.at(mark)
        body.append(f'<path class="grid" d="M{x:.1f} 0V{bottom}"/>')
        body.append(charts.text(x, bottom + 16, charts.number(mark)))
    for span in found:
        x, width = axis.at(span.start), max(1.0, axis.at(span.end) - axis.at(span.start))
        parts = [
            f'<rect x="{x:.1f}" y="{row * high + 2 + span.lane * lane:.1f}" width="{width:.1f}" '
            f'height="{lane:.1f}"/>'
            for row in range(span.low, span.high)
        ]
        title = f"<title>{escape(span.title)}</title>"
        body.append(f'<g fill="{charts.colour(span.lane)}">{title}{"".join(parts)}</g>')
    body.append(charts.text((left + charts.WIDTH) / 2, bottom + 35, x_name))
    return charts.svg(bottom + 42, body, f"layers against {x_name}")


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
        n: (50 + x * (charts.WIDTH - 100), 40 + (y / high if high > 0.02 else 0.5) * (height - 80))
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
        body.append(charts.text(x, y - 16, name, extra=' class="halo"'))
    return charts.svg(height, body, "the network and the way of the model")


def _towards(a: tuple[float, float], b: tuple[float, float], by: float) -> str:
    apart = ((b[0] - a[0]) ** 2 + (b[1] - a[1]) ** 2) ** 0.5 or 1.0
    return f"{a[0] + (b[0] - a[0]) * by / apart:.1f} {a[1] + (b[1] - a[1]) * by / apart:.1f}"
