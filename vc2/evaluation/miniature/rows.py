"""Results on disk: a file a seed, a line a scored model, only ever appended to."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

Row = dict[str, Any]
KEY = ("arm", "step", "weights", "fps")  # what tells the rows of a seed apart


def path_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.jsonl"


def read(path: Path) -> list[Row]:
    """All whole rows of a file; one that was cut off when its writer was killed is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in _whole(path.read_text(encoding="utf-8"))]


def _whole(text: str) -> Iterator[str]:
    return (line for line in text.splitlines(keepends=True) if line.endswith("\n"))


def key_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)


def append(path: Path, row: Row) -> None:
    """Add a row, whole or not at all; other processes may add theirs. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), open(path, "a+", encoding="utf-8") as file:
        file.seek(0)
        file.truncate(len("".join(_whole(file.read())).encode()))
        file.write(json.dumps(row, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def commit() -> str:
    """The commit of the code that runs, `-dirty` where files are changed other than the rows; "" outside a checkout."""
    root = Path(__file__).parents[3]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":!docs/miniature/rows")
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""
