"""Plots as SVG that is legible on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vc2.evaluation.svg import document, text

STYLE = """
text { font: 13px system-ui, -apple-system, "Segoe UI", sans-serif; fill: #1f2328; }
.paper { fill: #ffffff; } .dim { fill: #59636e; } .rule { stroke: #d1d9e0; } .one { stroke: #818b98; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; } .paper { fill: #0d1117; } .dim { fill: #9198a1; } .rule { stroke: #3d444d; }
}
"""
COLOURS = ("#2f81f7", "#d1495b", "#3fa7a0", "#b38600", "#8b6fd6")


def bars(title: str, values: Mapping[str, float], one: str) -> str:
    """A bar for each value, as a share of 1, at which stands what `one` names."""
    left, length, row = 330, 420, 26
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


def curves(title: str, x_axis: str, y_axis: str, lines: Mapping[str, Sequence[tuple[float, float, str]]]) -> str:
    """A line for each name, through points (x, y, label)."""
    left, top, width, height = 70, 44, 560, 320
    points = [point for line in lines.values() for point in line]
    x_most = max(x for x, _, _ in points) * 1.08
    y_most = max(y for _, y, _ in points) * 1.08 or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_most * width, top + height - y / y_most * height

    body = [text(16, 26, title)]
    for most, along in ((x_most, True), (y_most, False)):
        step = 10 ** math.floor(math.log10(most)) / 2
        step *= 1 if most / step <= 8 else 2
        for k in range(math.floor(most / step) + 1):
            x, y = at(k * step, 0) if along else at(0, k * step)
            end = f'x2="{x:.1f}" y2="{top}"' if along else f'x2="{left + width}" y2="{y:.1f}"'
            body.append(f'<line class="rule" x1="{x:.1f}" y1="{y:.1f}" {end}/>')
            place, anchor = ((x, y + 18), "middle") if along else ((x - 8, y + 4), "end")
            body.append(text(*place, f"{k * step:g}", "dim", anchor))
    for k, (name, line) in enumerate(lines.items()):
        colour, placed = COLOURS[k % len(COLOURS)], [(*at(x, y), label) for x, y, label in line]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in placed)
        body.append(f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for x, y, label in placed:
            body.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
            body.append(text(x + 6, y - 6, label, "dim"))
        body.append(f'<rect x="{left + width + 20}" y="{top + 22 * k}" width="12" height="12" fill="{colour}"/>')
        body.append(text(left + width + 38, top + 11 + 22 * k, name))
    body.append(text(left + width / 2, top + height + 40, x_axis, "dim", "middle"))
    body.append(text(left, top - 6, y_axis, "dim"))
    return document(left + width + 220, top + height + 56, title, STYLE, body)
