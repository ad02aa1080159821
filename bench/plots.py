"""Plots as SVG that is legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from vc2.evaluation.svg import document, text

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.paper { fill: #ffffff; } .dim { fill: #59636e; } .rule { stroke: #d1d9e0; } .one { stroke: #818b98; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .paper { fill: #0d1117; } .dim { fill: #9198a1; } .rule { stroke: #3d444d; }
}
"""
# Words among lines: on the page's colour, so that no line runs through them.
AMONG = """
.among {
  font-size: 11px; font-weight: 600;
  paint-order: stroke; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round;
}
@media (prefers-color-scheme: dark) { .among { stroke: #0d1117; } }
"""
COLOURS = ("#2f81f7", "#d1495b", "#3fa7a0", "#b38600", "#8b6fd6")
BESIDE = ((0, -13), (0, 13), (-16, 9), (16, -9), (0, 25), (0, -25))  # where a point's label can be, from the point
Line = Sequence[tuple[float, float, str]]  # points: x, y, and what stands beside it


def bars(title: str, values: Mapping[str, float], one: str) -> str:
    """A bar for each value, as a share of 1, at which stands what `one` names."""
    left, length, row = 28 + round(6.4 * max(map(len, values))), 420, 26
    most = max(1.0, *values.values()) * 1.12
    height = 70 + row * len(values)
    body = [text(16, 26, title)]
    for k, (name, value) in enumerate(values.items()):
        y = 44 + row * k
        body.append(text(left - 8, y + 15, name, anchor="end"))
        body.append(f'<rect x="{left}" y="{y}" width="{value / most * length:.1f}" height="18" fill="{COLOURS[0]}"/>')
        body.append(text(left + value / most * length + 6, y + 14, f"{value:.2f}x"))
    x = left + length / most
    body.append(f'<line class="one" x1="{x:.1f}" x2="{x:.1f}" y1="38" y2="{height - 22}" stroke-dasharray="4 3"/>')
    body.append(text(x, height - 8, one, "dim", "middle"))
    return document(left + length + 60, height, title, STYLE, body)


@dataclass(frozen=True)
class Panel:
    """A line for each name. `log`: by the logarithm of y, which is above 0."""

    heading: str
    lines: Mapping[str, Line]
    log: bool = False


def panels(title: str, x_axis: str, shown: Sequence[Panel]) -> str:
    """One below another over one x axis, those that have lines; a name has one colour in all."""
    shown = [panel for panel in shown if panel.lines]
    left, top, width, height, between = 56, 104, 620, 180, 60
    x_most = max(x for panel in shown for line in panel.lines.values() for x, _, _ in line) * 1.05
    names = list(dict.fromkeys(name for panel in shown for name in panel.lines))
    colours = {name: COLOURS[k % len(COLOURS)] for k, name in enumerate(names)}
    body, x = [text(16, 26, title)], 16
    for name in names:
        body.append(f'<rect x="{x}" y="46" width="12" height="12" fill="{colours[name]}"/>')
        body.append(text(x + 18, 57, name))
        x += 42 + 7 * len(name)
    for k, panel in enumerate(shown):
        body += _panel(panel, x_most, colours, (left, top + k * (height + between), width, height))
    bottom = top + len(shown) * (height + between) - between
    body.append(text(left + width / 2, bottom + 40, x_axis, "dim", "middle"))
    return document(left + width + 24, bottom + 56, title, STYLE + AMONG, body)


def _panel(panel: Panel, x_most: float, colours: Mapping[str, str], place: tuple[int, int, int, int]) -> list[str]:
    left, top, width, height = place
    scale = math.log10 if panel.log else float
    values = [scale(y) for line in panel.lines.values() for _, y, _ in line]
    # Room for a label above the highest point, and under logarithms below the lowest.
    room = 0.14 * (max(values) - min(values) or 1.0)
    low, high = min(values) - room if panel.log else 0.0, max(values) + room

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_most * width, top + height * (high - scale(y)) / (high - low)

    body = [text(left, top - 12, panel.heading)]
    for value in _ticks(x_most):
        x = left + value / x_most * width
        body.append(f'<line class="rule" x1="{x:.1f}" y1="{top + height}" x2="{x:.1f}" y2="{top}"/>')
        body.append(text(x, top + height + 18, f"{value:g}", "dim", "middle"))
    for value in _decades(10**low, 10**high) if panel.log else _ticks(high):
        _, y = at(0, value)
        body.append(f'<line class="rule" x1="{left}" y1="{y:.1f}" x2="{left + width}" y2="{y:.1f}"/>')
        body.append(text(left - 8, y + 4, f"{value:g}", "dim", "end"))
    points = []
    for name, line in panel.lines.items():
        placed = [(*at(x, y), label, colours[name]) for x, y, label in line]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y, _, _ in placed)
        body.append(f'<polyline points="{way}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        points += placed
    body += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y, _, colour in points]
    return body + _labels(points)


def _labels(points: Sequence[tuple[float, float, str, str]]) -> list[str]:
    """Each at the first place by its point where it runs into no point and no earlier label; else not at all."""
    body, taken = [], [(x, y, 4.0) for x, y, _, _ in points]
    for x, y, label, colour in points:
        half = 3.5 * len(label)
        for across, down in BESIDE:
            a, b = x + across, y + down
            if all(abs(a - c) >= half + reach or abs(b - d) >= 9 for c, d, reach in taken):
                body.append(
                    f'<text x="{a:.1f}" y="{b + 4:.1f}" class="among" text-anchor="middle" style="fill: {colour}">'
                    f"{escape(label)}</text>"
                )
                taken.append((a, b, half))
                break
    return body


def _ticks(most: float) -> list[float]:
    step = 10 ** math.floor(math.log10(most)) / 2
    step *= 1 if most / step <= 8 else 2
    return [k * step for k in range(math.floor(most / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    return [value for k in powers for m in (1, 2, 5) if low <= (value := float(f"{m}e{k}")) <= high]
