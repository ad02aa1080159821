"""A report's three files from its material: report.md, report.json, report.html."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from importlib.resources import files as resources
from typing import Any

import jinja2

from ..rows import CONTROLS
from . import tables
from .clips import Shown, Strip
from .material import FORMAT, Material
from .tables import Mean

PAGE, NUMBERS, HTML = "report.md", "report.json", "report.html"
STRIP = re.compile(r'src="data:image/webp;base64,[^"]*"')


def render(material: Material, strips: Sequence[Strip]) -> dict[str, str]:
    """The files by name. `strips`: of the clips that the material shows, in their order."""
    made = tables.tables([one.name for one in material.sets], material.scores)
    tree = {
        "format": FORMAT,
        "title": material.title,
        "made": material.made,
        "sets": [vars(one) for one in material.sets],
        "tables": tables.tree(made),
        "skipped": [vars(one) for one in made.skipped],
        "by": material.by,
        "seed": material.seed,
        "clips": list(material.shown),
    }
    shown = [Shown(**{**one, "rules": tuple(one["rules"])}) for one in material.shown]
    context = {
        "title": material.title,
        "made": material.made,
        "sets": material.sets,
        "tables": made.measures,
        "controls": [name for name in CONTROLS if any(name in c.controls for t in made.measures for c in t.cells)],
        "skipped": made.skipped,
        "by": material.by,
        "seed": material.seed,
        "shown": shown,
        "strips": {(one.set, one.clip): strip for one, strip in zip(shown, strips, strict=True)},
        "prompts": _prompts(shown),
    }
    return {
        NUMBERS: json.dumps(tree, indent=1) + "\n",
        PAGE: re.sub(r"\n{3,}", "\n\n", _environment(False).get_template("report.md.jinja").render(context)),
        HTML: _environment(True).get_template("report.html.jinja").render(context),
    }


def _prompts(shown: list[Shown]) -> dict[str, list[Shown]]:
    """Clips that are shown side by side, by prompt."""
    by_prompt: dict[str, list[Shown]] = {}
    for one in shown:
        if "prompt" in one.rules:
            by_prompt.setdefault(one.prompt_id or "", []).append(one)
    return by_prompt


def _environment(html: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vc2.evaluation.report", "."),
        autoescape=html,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "interval": interval, "cell": markdown_cell}
    environment.tests["has"] = lambda rules, rule: rule in rules
    return environment


def number(value: float) -> str:
    """Three significant digits, without an exponent where that is readable; with a minus sign that is one."""
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}" if digits <= 6 and abs(value) < 1e7 else f"{value:.2e}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(value: Mean | None) -> str:
    return f"[{number(value.interval[0])}, {number(value.interval[1])}]" if value and value.interval else ""


def markdown_cell(text: object) -> str:
    """Text that cannot leave a table's cell, nor become HTML or a link."""
    return re.sub(r"([\\`*_\[\]<>|&#!~$])", r"\\\1", " ".join(str(text).split()))


def sources(html: str) -> list[str]:
    """The data URIs of a page's pictures."""
    return [match[5:-1] for match in STRIP.findall(html)]


def without_pictures(html: str) -> str:
    """What follows from the rows alone."""
    return STRIP.sub('src=""', html)


def schema() -> dict[str, Any]:
    """JSON Schema of `report.json`."""
    tree: dict[str, Any] = json.loads(resources(__package__).joinpath("schema.json").read_text(encoding="utf-8"))
    return tree
