"""Which samples of a source are read, by what its list says of them: size, watermark, aesthetic score."""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from typing import IO

import numpy as np
from pydantic import Field

from ..section import Section
from .images import shown_size

log = logging.getLogger(__name__)

# What is known of a sample before it is read; 0 and NaN where it is not.
DETAILS = np.dtype([("width", "<u2"), ("height", "<u2"), ("watermark", "<f4"), ("aesthetic", "<f4")])
NOTHING = (0, 0, np.nan, np.nan)
LARGEST = float(np.finfo(np.float32).max)


class SelectSize(Section):
    """Samples to read, by their size; one whose size is not known is left out."""

    min_side: int | None = Field(None, ge=1)  # pixels of the shorter side
    max_aspect: float | None = Field(None, ge=1)  # longer side / shorter side

    def failing(self, details: np.ndarray) -> dict[str, np.ndarray]:
        """For each criterion that is set, which of `details` (DETAILS, `[N]`) do not meet it: `[N]`, booleans."""
        short = np.minimum(details["width"], details["height"]).astype(np.float64)
        long = np.maximum(details["width"], details["height"]).astype(np.float64)
        out = {}
        if self.min_side is not None:
            out[f"min_side {self.min_side}"] = short < self.min_side
        if self.max_aspect is not None:
            out[f"max_aspect {self.max_aspect:g}"] = (short == 0) | (long > self.max_aspect * short)
        return out

    @property
    def asks_size(self) -> bool:
        return self.min_side is not None or self.max_aspect is not None

    @property
    def empty(self) -> bool:
        """Nothing is asked: all samples are selected."""
        return not self.failing(np.empty(0, DETAILS))


class Select(SelectSize):
    """Samples to read, by their size and by LAION's scores; one of which what is asked is not known is left out.
    `watermark` and `aesthetic` are the columns (in tars: the keys of a sample's JSON) that hold the scores.
    """

    max_watermark: float | None = Field(None, ge=0, le=1)  # probability that there is a watermark
    min_aesthetic: float | None = None  # by LAION's predictor, about 1..10
    watermark: str = "pwatermark"
    aesthetic: str = "aesthetic"

    def failing(self, details: np.ndarray) -> dict[str, np.ndarray]:
        out = super().failing(details)
        if self.max_watermark is not None:
            out[f"max_watermark {self.max_watermark:g}"] = ~(details["watermark"] <= self.max_watermark)
        if self.min_aesthetic is not None:
            out[f"min_aesthetic {self.min_aesthetic:g}"] = ~(details["aesthetic"] >= self.min_aesthetic)
        return out

    def read(self, row: Mapping[str, object]) -> tuple[int, int, float, float]:
        """DETAILS of a row of a list, or of a sample's JSON."""
        width, height = _number(row.get("width")), _number(row.get("height"))
        known = 0 < width < 2**16 and 0 < height < 2**16
        size = (int(width), int(height)) if known else (0, 0)
        return *size, _number(row.get(self.watermark)), _number(row.get(self.aesthetic))


class Selection:
    """Counts what a source's `select` leaves in and out."""

    def __init__(self, select: SelectSize):
        self.select, self.total, self.selected = select, 0, 0
        self.failed: dict[str, int] = {}

    def __call__(self, details: np.ndarray) -> np.ndarray:
        """Which of some samples are selected, `[N]`, booleans."""
        good = np.ones(len(details), bool)
        for criterion, bad in self.select.failing(details).items():
            self.failed[criterion] = self.failed.get(criterion, 0) + int(bad.sum())
            good &= ~bad
        self.total += len(details)
        self.selected += int(good.sum())
        return good

    def __str__(self) -> str:
        out = f"{self.selected:,} of {self.total:,} samples are selected"
        reasons = [f"{count:,} do not meet {criterion}" for criterion, count in self.failed.items() if count]
        return f"{out} ({', '.join(reasons)})" if reasons else out


def picture_size(file: IO[bytes]) -> tuple[int, int]:
    """(width, height) of a picture as it is shown, (0, 0) where it is none; its pixels are not read."""
    try:
        width, height = shown_size(file)
    except Exception as error:  # noqa: BLE001 (decoders raise what they like; whoever reads the sample will say why)
        log.debug("a picture's size is not known: %s", error)
        return 0, 0
    return (width, height) if max(width, height) < 2**16 else (0, 0)


def size_of_bytes(content: bytes) -> tuple[int, int]:
    return picture_size(io.BytesIO(content))


def _number(value: object) -> float:
    """NaN where it is none, or none that fits."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return number if abs(number) <= LARGEST else np.nan
