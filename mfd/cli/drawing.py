"""Pictures of networks: in the terminal with braille dots, as an image with matplotlib.

Rules of this file: it draws what a Topology says; where its nodes lie is layout's business.
"""

from __future__ import annotations

import os
from pathlib import Path

from mfd.cli.errors import CommandError, Misuse
from mfd.topology import Node, Topology, place

__all__ = ["ENDINGS", "draw_image", "draw_text", "role", "terminal_size"]

ENDINGS = (".svg", ".png", ".pdf")
NAMED_MAX = 48  # more nodes than that go without their names
CELL = (2, 4)  # dots of a braille character
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
MARKS = {"holder": ("\u25cf", "*"), "custodian": ("\u25c6", "#"), "relay": ("\u25cb", "o")}
LOOKS = {"holder": ("#1f6f8b", "o"), "custodian": ("#b5651d", "D"), "relay": ("#ffffff", "o")}
DPI = 150


def role(node: Node) -> str:
    """What a node is to models that pass."""
    return "relay" if node.relay else "custodian" if node.custodian else "holder"


# in the terminal


def draw_text(topology: Topology, width: int, height: int, *, plain: bool = False) -> str:
    """Draw a network within so many columns and lines. `plain`: ASCII signs only."""
    canvas = _Canvas(width, height, plain=plain)
    named = len(topology.nodes) <= NAMED_MAX
    margin = max((len(name) for name in topology.nodes), default=0) + 2 if named else 1
    at = {
        name: (round(x * max(1, width - 1 - min(margin, width // 3))), round(y * (height - 1)))
        for name, (x, y) in _stretched(place(topology)).items()
    }
    for edge in topology.edges:
        if edge.a in at and edge.b in at:
            canvas.line(at[edge.a], at[edge.b])
    for name, node in topology.nodes.items():
        canvas.write(at[name], MARKS[role(node)][plain])
    for name in topology.nodes if named else ():
        canvas.name(at[name], name)
    return canvas.text()


def _stretched(at: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Use the whole height too: a terminal is flat anyway."""
    high = max((y for _, y in at.values()), default=0.0)
    return {name: (x, y / high if high > 0.05 else 0.5) for name, (x, y) in at.items()}


class _Canvas:
    """Characters, and dots behind them."""

    def __init__(self, width: int, height: int, *, plain: bool) -> None:
        self.width, self.height, self.plain = width, height, plain
        self.dots = [[0] * width for _ in range(height)]
        self.signs: list[list[str]] = [[""] * width for _ in range(height)]

    def line(self, a: tuple[int, int], b: tuple[int, int]) -> None:
        """Draw a straight line between the middles of two characters."""
        (ax, ay), (bx, by) = ((x * CELL[0] + 1, y * CELL[1] + 1) for x, y in (a, b))
        steps = max(abs(bx - ax), abs(by - ay), 1)
        for step in range(steps + 1):
            x, y = ax + (bx - ax) * step / steps, ay + (by - ay) * step / steps
            self._dot(round(x), round(y))

    def _dot(self, x: int, y: int) -> None:
        column, row = x // CELL[0], y // CELL[1]
        if 0 <= column < self.width and 0 <= row < self.height:
            self.dots[row][column] |= BRAILLE[y % CELL[1]][x % CELL[0]]

    def write(self, at: tuple[int, int], text: str) -> None:
        """Put signs over the dots, from a place to the right."""
        for offset, sign in enumerate(text):
            if 0 <= at[0] + offset < self.width:
                self.signs[at[1]][at[0] + offset] = sign

    def name(self, at: tuple[int, int], name: str) -> None:
        """Write a name where it hides least: beside the node, else above or below."""
        x, y = at
        size = len(name)
        places = [(x + 2, y), (x - size - 1, y)]
        places += [(x - size // 2, y - 1), (x - size // 2, y + 1), (x + 1, y - 1), (x + 1, y + 1)]
        fits = [p for p in places if 0 <= p[0] <= self.width - size and 0 <= p[1] < self.height]
        if fits:
            self.write(min(fits, key=lambda p: self._hidden(p, size)), name)

    def _hidden(self, at: tuple[int, int], size: int) -> int:
        row, cells = at[1], range(at[0], at[0] + size)
        taken = sum(100 for x in cells if self.signs[row][x])
        return taken + sum(1 for x in cells if self.dots[row][x])

    def text(self) -> str:
        """All of it, without blanks at the ends of lines."""
        lines = []
        for dots, signs in zip(self.dots, self.signs, strict=True):
            cells = [sign or self._behind(dot) for dot, sign in zip(dots, signs, strict=True)]
            lines.append("".join(cells).rstrip())
        return "\n".join(lines).strip("\n")

    def _behind(self, dot: int) -> str:
        if not dot:
            return " "
        return "." if self.plain else chr(0x2800 + dot)


# as an image


def draw_image(topology: Topology, path: Path, title: str) -> None:
    """Write a picture; the ending tells its kind. Raises: Misuse, CommandError."""
    if path.suffix.lower() not in ENDINGS:
        raise Misuse(f"--out {path}: a picture ends in {', '.join(ENDINGS)}")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as exc:
        raise CommandError(
            "pictures need matplotlib: run `pip install 'mfd[draw]'`, or leave --out away to draw "
            "in the terminal"
        ) from exc
    at = place(topology)
    high = max((y for _, y in at.values()), default=0.0)
    figure = Figure(figsize=(9, 1.8 + 8 * max(0.15, min(high, 1.0))), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.03, 0.09, 0.94, 0.82))
    axes.set_axis_off()
    axes.margins(0.08)
    axes.set_aspect("equal")
    axes.set_title(f"{title}: {len(topology.nodes)} nodes, {len(topology.edges)} links")
    for edge in topology.edges:
        if edge.a in at and edge.b in at:
            (ax, ay), (bx, by) = at[edge.a], at[edge.b]
            axes.plot((ax, bx), (ay, by), color="#9aa5ad", linewidth=1.0, zorder=1)
    size = 220 if len(at) <= NAMED_MAX else max(8, 6_000 / len(at))
    for kind, (colour, shape) in LOOKS.items():
        nodes = [name for name, node in topology.nodes.items() if role(node) == kind]
        if nodes:
            xs, ys = zip(*(at[name] for name in nodes), strict=True)
            axes.scatter(
                xs, ys, s=size, c=colour, marker=shape, edgecolors="#33414a", zorder=2, label=kind
            )
    if len(at) <= NAMED_MAX:
        for name, (x, y) in at.items():
            axes.annotate(
                name, (x, y), xytext=(0, 11), textcoords="offset points", ha="center", fontsize=8
            )
    if at:
        figure.legend(loc="lower center", ncol=len(LOOKS), frameon=False, markerscale=0.6)
    try:
        figure.savefig(path, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)
    except OSError as exc:
        raise CommandError(f"{path}: cannot be written: {exc.strerror or exc}") from exc


def terminal_size() -> tuple[int, int]:
    """Columns and lines to draw in."""
    try:
        columns, lines = os.get_terminal_size()
    except OSError:  # a pipe or a file
        return 100, 30
    return max(40, min(columns - 1, 160)), max(12, min(lines - 8, 40))
