"""Where a report is, and what it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .arms import DOCS, ENCODERS, GATES, QUICK_ROOT, RATES, REPEAT_ROOT, ROOT, Place


@dataclass(frozen=True)
class Layout:
    """`folder` holds the page; it is made of `rows/seed-*.jsonl` and of `gates`. `kind` is that of `Evidence`."""

    folder: Path
    rows: Path
    gates: Path
    place: Place
    kind: str

    @property
    def calibration(self) -> Path:
        return self.gates.with_name("calibration.json")

    @property
    def rates(self) -> Path:
        """Rows of the pilot's comparison of learning rates, which may not be there."""
        return self.gates.with_name(RATES.name)

    @property
    def votes(self) -> Path:
        """A folder of `rate`, which may not be there."""
        return self.folder / "votes"


def of_kind(kind: str) -> Layout:
    """Of the seeds that count (docs/miniature), of the pilot's, of a repetition, or of a sketch."""
    if kind in ("repeat", "sketch"):
        place = Place(QUICK_ROOT, ENCODERS, quick=True) if kind == "sketch" else Place(REPEAT_ROOT, ENCODERS)
        return Layout(place.root / "report", place.root / "rows", GATES, place, kind)
    folder = ROOT / "pilot" if kind == "pilot" else DOCS
    return Layout(folder, DOCS / "rows", GATES, Place(ROOT, ENCODERS), kind)


def in_folder(folder: Path) -> Layout:
    """Of the seeds that count, in a copy of docs/miniature."""
    return Layout(folder, folder / "rows", folder / "gates.json", Place(ROOT, ENCODERS), "counted")
