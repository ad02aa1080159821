"""Reports of which each section has its own bench."""

from __future__ import annotations

from pathlib import Path


def begin(path: Path, text: str) -> None:
    """Put `text` before the first section of a report, in place of what stands there."""
    sections = path.read_text(encoding="utf-8").partition("\n## ")[1:] if path.is_file() else ("", "")
    path.write_text(text.rstrip() + "\n" + "".join(sections), encoding="utf-8")


def replace(path: Path, title: str, text: str) -> None:
    """Put `text` under `## title` in a report, in place of what stands there, or at its end."""
    before, _, rest = path.read_text(encoding="utf-8").partition(f"\n## {title}\n")
    _, heading, after = rest.partition("\n## ")
    path.write_text(
        f"{before.rstrip()}\n\n## {title}\n\n{text.strip()}\n{heading and heading + after}", encoding="utf-8"
    )
