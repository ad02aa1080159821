"""Saving and resuming a run: one file a checkpoint, written to a temporary name and renamed, the newest two kept.

Random numbers need no saving: every step seeds its generators from (recipe seed, step), so a resumed run draws what the uninterrupted one drew.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

KEEP = 2


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write `step-XXXXXXXX.pt`, whole or not at all, and remove all but the newest two."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:08d}.pt"
    temporary = path.with_suffix(".tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save({"step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    for old in all_steps(folder)[:-KEEP]:
        old.unlink()
    return path


def all_steps(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's content, or None."""
    found = all_steps(folder)
    return torch.load(found[-1], map_location="cpu", weights_only=True) if found else None
