"""What the reports of benches are made of: rows of a JSON file and tables in Markdown."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

Json = dict[str, Any]
NOT_MEASURED = "not measured"


def rows_in(path: Path) -> list[Json]:
    """The rows that a bench has kept there; none where it has not run."""
    return json.loads(path.read_text())["rows"] if path.is_file() else []


def rows_of(folder: Path, name: str) -> list[Json]:
    return rows_in(folder / "performance" / f"{name}.json")


def table(head: str, rows: list[list[str]]) -> str:
    cells = [part.strip() for part in head.split("|")]
    lines = [cells, ["---"] * len(cells), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def wrapped(text: str, indent: str = "") -> str:
    """A paragraph in lines as long as ours are; neither links nor names are broken."""
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def seconds(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    return f"{1000 * value:.0f} ms" if value < 1 else f"{value:.2f} s"


def machines(rows: list[Json]) -> str:
    """A line for each machine and its versions, with the commits that were measured there and the days."""
    commits: dict[str, dict[str, None]] = {}
    for row in rows:
        facts = row["facts"]
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        day = f" ({facts['day']})" if "day" in facts else ""
        commits.setdefault(f"{facts['machine']} ({facts['system']}); {versions}", {})[facts["commit"] + day] = None
    return "\n".join(f"- {where}; commit{'s' * (len(at) > 1)} {', '.join(at)}" for where, at in commits.items())
