"""The report's plots, as SVG that follows the reader's light or dark theme."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from ..svg import document, text
from .verdicts import AS_CLAIMED, OTHER_WAY, Tested, Verdict, in_words

STYLE = """
svg { font: 14px system-ui, -apple-system, "Segoe UI", sans-serif; }
.paper { fill: #ffffff; } .ink { fill: #1f2328; } .dim { fill: #59636e; } .small { font-size: 12px; }
.tiny { font-size: 10px; }
.bold { font-weight: 600; } .start { fill: none; stroke: #818b98; stroke-width: 2; }
.rule { stroke: #d1d9e0; } .zero { stroke: #818b98; stroke-dasharray: 3 3; }
.margin { fill: #818b98; opacity: 0.18; } .seed { fill: #0969da; opacity: 0.55; } .bar { stroke: #1f2328; }
.mean { fill: #1f2328; } .way { fill: none; stroke-width: 2; } .halo { stroke: #ffffff; stroke-width: 4; }
.confirmed { fill: #1a7f37; } .refuted { fill: #cf222e; } .untestable { fill: #9a6700; } .other { fill: #6e7781; }
.claimed { fill: #1a7f37; } .contrary { fill: #cf222e; } .star { fill: #1f2328; }
.label { fill: #ffffff; font-size: 12px; font-weight: 600; }
@media (prefers-color-scheme: dark) {
  .paper { fill: #0d1117; } .ink { fill: #f0f6fc; } .dim { fill: #9198a1; } .rule { stroke: #3d444d; }
  .zero { stroke: #818b98; } .seed { fill: #4493f8; } .bar { stroke: #f0f6fc; } .mean { fill: #f0f6fc; }
  .halo { stroke: #0d1117; } .claimed { fill: #3fb950; } .contrary { fill: #f85149; } .star { fill: #f0f6fc; }
  .confirmed { fill: #238636; } .refuted { fill: #da3633; } .untestable { fill: #9e6a03; } .other { fill: #656c76; }
}
"""
# Legible on white and on black; partial training in reds, full training in the others.
COLOURS = {
    "P-Spa-LORA": "#d1495b",
    "P-Temp-LORA": "#e07b39",
    "F-Spa-DIR": "#2f81f7",
    "F-Spa-LORA": "#3fa7a0",
    "F-Temp-LORA": "#8b6fd6",
    "F-Spa-Temp-DIR": "#4f9d3a",
    "F-Temp-DIR": "#b38600",
    "F-Spa-Temp-LORA": "#c45fa8",
    "F-Spa-DIR-LAION": "#7d8590",
}


WIDTH, LEFT, PLOT, HEADER, ROW, PILL = 930, 350, 300, 44, 58, 154  # of the forest, in pixels


def forest(verdicts: Sequence[Verdict]) -> str:
    """Every part of every claim: a dot a seed, the mean and its 95 % interval, on a scale of its own around 0; for
    "equal" the margin is shaded.
    """
    body, y = [], 12.0
    for verdict in verdicts:
        body.append(_pill(16, y + 8, verdict))
        lines = textwrap.wrap(f"{verdict.claim.number}. {verdict.claim.says}", 84)
        body += [text(16 + PILL + 14, y + 24 + 18 * i, line, "ink bold") for i, line in enumerate(lines)]
        y += HEADER + 18 * (len(lines) - 1)
        for letter, part in zip("ab", verdict.parts, strict=False):
            body += _part(y, f"{verdict.claim.number}{letter}", part)
            y += ROW
        body.append(f'<line class="rule" x1="16" x2="{WIDTH - 16}" y1="{y:.1f}" y2="{y:.1f}"/>')
        y += 6
    foot = (
        "To the right: as claimed; what is claimed to be equal has its margin shaded. A dot is a training seed,",
        "the diamond their mean, the bar its 95 % interval. Each line has its own scale, whose ends stand below it.",
    )
    body += [text(16, y + 22 + 18 * i, line, "dim small") for i, line in enumerate(foot)]
    return document(WIDTH, y + 56, "Every part of every claim over the training seeds", STYLE, body)


def _pill(x: float, y: float, verdict: Verdict) -> str:
    kind = verdict.verdict if verdict.verdict in ("confirmed", "refuted", "untestable") else "other"
    return f'<rect class="{kind}" x="{x}" y="{y}" width="{PILL}" height="22" rx="11"/>' + text(
        x + PILL / 2, y + 15.5, in_words(verdict), "label", "middle"
    )


def _part(y: float, name: str, part: Tested) -> list[str]:
    middle, centre = y + ROW / 2, LEFT + PLOT / 2
    low, high = part.interval or (part.mean, part.mean)
    margin = part.part.margin
    reach = 1.1 * max(map(abs, (*part.values, low, high, margin or 0.0))) or 1.0

    def at(value: float) -> float:
        return centre + value / reach * PLOT / 2

    body = [text(16, middle + 5, name, "ink bold")]
    lines = textwrap.wrap(part.part.says, 44)
    body += [text(46, middle + 5 + 17 * (i - (len(lines) - 1) / 2), line, "ink small") for i, line in enumerate(lines)]
    if margin is not None:
        body.append(
            f'<rect class="margin" x="{at(-margin):.1f}" y="{y + 6:.1f}" width="{at(margin) - at(-margin):.1f}"'
            f' height="{ROW - 12}"/>'
        )
    body.append(f'<line class="zero" x1="{centre}" x2="{centre}" y1="{y + 4:.1f}" y2="{y + ROW - 4:.1f}"/>')
    body.append(text(LEFT, y + ROW - 2, signed(-reach), "dim tiny", "start"))
    body.append(text(LEFT + PLOT, y + ROW - 2, signed(reach), "dim tiny", "end"))
    body += [f'<circle class="seed" cx="{at(value):.1f}" cy="{middle - 9:.1f}" r="4.5"/>' for value in part.values]
    body.append(
        f'<line class="bar" stroke-width="2.5" x1="{at(low):.1f}" x2="{at(high):.1f}" y1="{middle + 9:.1f}"'
        f' y2="{middle + 9:.1f}"/>'
    )
    x, base = at(part.mean), middle + 9
    body.append(f'<path class="mean" d="M{x - 6:.1f} {base:.1f} l6 -6 l6 6 l-6 6 z"/>')
    right = LEFT + PLOT + 24
    body.append(text(right, middle - 2, signed(part.mean), "ink bold"))
    if part.interval:
        body.append(text(right + 62, middle - 2, bracketed(part.interval), "ink small"))
    wanted = "> 0" if margin is None else f"within ±{margin:g}"
    says = f"{part.in_favour} of {len(part.values)} seeds {wanted}: {part.stands}"
    body.append(
        text(
            right, middle + 16, says, {AS_CLAIMED: "claimed", OTHER_WAY: "contrary"}.get(part.stands, "dim") + " small"
        )
    )
    return body


def bracketed(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"[{signed(low)}, {signed(high)}]"


def signed(value: float) -> str:
    """With a sign, and with a third digit where two would be nothing."""
    text = f"{value:+.2f}"
    if not float(text):
        text = f"{value:+.3f}"
    return "0.00" if not float(text) else text.replace("-", "\N{MINUS SIGN}")


Way = Sequence[tuple[int, float, float]]  # step, defect, motion error


def trajectories(ways: Mapping[str, Way], truth: tuple[float, float] | None = None) -> str:
    """Picture against motion along the finetunes, in a panel for each base: to the right the picture is cleaner, and
    upwards the motion is better; a dot is a stop at which the model was scored, the star the `truth`, (defect, motion
    error).
    """
    panels = {base: {name: way for name, way in ways.items() if name[0] == base and way} for base in "PF"}
    size, gap, top = 350, 70, 46
    # Panels share their axes, or they could not be compared.
    points = [(defect, motion) for way in ways.values() for _, defect, motion in way] or [(0.0, 0.0), (1.0, 1.0)]
    points += [truth] if truth else []
    (x_low, x_high), (y_low, y_high) = (_limits(values) for values in zip(*points, strict=True))
    body = []
    for number, (base, mine) in enumerate(panels.items()):
        left = 60 + number * (size + gap)

        def place(defect: float, motion: float, left: float = left) -> tuple[float, float]:
            return (
                left + (x_high - defect) / (x_high - x_low) * size,
                top + (motion - y_low) / (y_high - y_low) * size,
            )

        training = "temporal layers alone" if base == "P" else "all layers"
        body.append(text(left, 30, f"{base}-base: {training} saw the videos", "ink bold"))
        for defect in _ticks(x_low, x_high):
            x, _ = place(defect, y_low)
            body.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{top + size}"/>')
            body.append(text(x, top + size + 18, f"{defect:.2f}", "dim small", "middle"))
        for motion in _ticks(y_low, y_high):
            _, y = place(x_low, motion)
            body.append(f'<line class="rule" x1="{left}" x2="{left + size}" y1="{y:.1f}" y2="{y:.1f}"/>')
            body.append(text(left - 8, y + 4, f"{motion:.2f}", "dim small", "end"))
        for name, way in mine.items():
            body += _way(name, [place(defect, motion) for _, defect, motion in way])
        if truth:
            body.append(_star(*place(*truth)))
        axis = "defect: cleaner picture \N{RIGHTWARDS ARROW}"
        body.append(text(left + size / 2, top + size + 40, axis, "dim small", "middle"))
        body += _labels({name: place(*way[-1][1:]) for name, way in mine.items()}, left, left + size)
    body.append(
        f'<text transform="translate(16 {top + size / 2}) rotate(-90)" class="dim small" text-anchor="middle">'
        "motion error: better motion \N{RIGHTWARDS ARROW}</text>"
    )
    title = "Picture against motion along the finetunes"
    return document(60 + 2 * size + gap + 20, top + size + 56, title, STYLE, body)


def _star(x: float, y: float) -> str:
    corners = [
        (x + r * math.sin(math.pi * k / 5), y - r * math.cos(math.pi * k / 5)) for k, r in enumerate((9, 3.6) * 5)
    ]
    return f'<polygon class="star" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in corners)}"/>'


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * (high - low) or 0.1
    return low - room, high + room


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within."""
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0) if (high - low) / step <= 7 or step == 1.0)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _way(name: str, points: Sequence[tuple[float, float]]) -> list[str]:
    colour = COLOURS[name]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    body = [f'<polyline class="way" stroke="{colour}" points="{line}"/>']
    body += [f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in points[:-1]]
    # Where all begin: the base.
    x, y = points[0]
    body.append(f'<circle class="start" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
    x, y = points[-1]
    return [*body, f'<circle fill="{colour}" cx="{x:.1f}" cy="{y:.1f}" r="6"/>']


def _labels(ends: Mapping[str, tuple[float, float]], left: float, right: float) -> list[str]:
    """Names beside the ends, moved down where they would lie on one another."""
    body: list[str] = []
    taken: list[tuple[float, float, float]] = []  # from, to, y
    for name, (x, y) in sorted(ends.items(), key=lambda item: item[1][1]):
        before, width = x > (left + right) / 2, 7.5 * len(name)
        at, anchor = (x - 11, "end") if before else (x + 11, "start")
        start = at - width if before else at
        y += 4
        for other_start, other_end, other_y in taken:
            if start < other_end and other_start < start + width and abs(y - other_y) < 15:
                y = other_y + 15
        taken.append((start, start + width, y))
        body.append(
            f'<text x="{at:.1f}" y="{y:.1f}" class="small halo" paint-order="stroke" fill="{COLOURS[name]}"'
            f' font-weight="600" text-anchor="{anchor}" stroke-linejoin="round">{escape(name)}</text>'
        )
    return body
