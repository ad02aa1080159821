"""What all pages of the evaluation are written with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..files.output import whole


def replace_text(path: Path, text: str) -> None:
    """Whole or not at all. Raises OSError."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def rounded(value: Any) -> Any:
    """A tree of numbers to six digits, which other processors' sums share; tuples become lists, as in JSON."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}")
    return value
