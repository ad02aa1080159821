"""Results on disk: a file a seed, a line a scored model, only ever appended to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..provenance import commit
from ..rows import JsonRow as Row
from ..rows import append, read

__all__ = ["KEY", "Row", "append", "commit", "key_of", "path_of", "read"]

KEY = ("arm", "step", "weights", "fps")  # what tells the rows of a seed apart


def path_of(folder: Path, seed: int) -> Path:
    return folder / f"seed-{seed}.jsonl"


def key_of(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)
