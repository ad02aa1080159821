"""SVG for pages that are read light or dark: the document around a plot, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape


def document(width: float, height: float, title: str, style: str, body: Sequence[str]) -> str:
    """`style` is CSS, with a fill for the class `paper`; sizes are in pixels."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}"'
            f' height="{height:g}" role="img" aria-label="{escape(title, {chr(34): "&quot;"})}">',
            f"<title>{escape(title)}</title>",
            f"<style>{style}</style>",
            f'<rect class="paper" width="{width:g}" height="{height:g}" rx="8"/>',
            *body,
            "</svg>\n",
        ]
    )


def text(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start") -> str:
    """`kind`: classes of the style."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
