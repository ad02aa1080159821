"""workflows/README.md: the graphs at a glance, for those who read the folder before they open ComfyUI.

Templates show a pack's graphs by the names of their files: no front end reads titles from elsewhere (docs/hosts.md).
"""

from __future__ import annotations

from .graphs import FOLDER, WORKFLOWS

FILE = FOLDER / "README.md"
HEAD = (
    "# Workflows",
    "",
    "Drag a json onto the canvas, or search *Templates* for **videocrafter**. The pictures show moments of a clip",
    "that the graph itself made, with the bundled miniature at 64 x 64 in place of the real model.",
    "",
    "| | |",
    "| --- | --- |",
)


def catalogue() -> str:
    """A table of every graph: its picture, and what its note says first."""
    rows = []
    for name, describe in WORKFLOWS.items():
        heading, text, *_ = describe().note.split("\n\n")
        picture = f'<img src="{name}.jpg" width="128" alt="what {name} makes">'
        rows.append(f"| {picture} | [**{heading.removeprefix('## ')}**]({name}.json)<br>{text} |")
    return "\n".join([*HEAD, *rows, ""])


def write_catalogue() -> None:
    FILE.write_text(catalogue(), encoding="utf-8")
