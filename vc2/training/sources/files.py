"""Lists of files with captions."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .record import Record, read_range, text_of
from .source import Reader, Sample, SourceError, View

ENDINGS = {
    "clips": (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"),
    "images": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"),
}


class Listing(Reader):
    """Video or image files with captions."""

    def __init__(self, medium: str):
        self.medium = medium

    @abstractmethod
    def record(self, index: int) -> Record:
        """Raises BrokenSample where the list itself is broken there."""

    def read(self, index: int, view: View) -> Sample:
        from . import media  # and with it torch, which takes a second to import

        return media.read(self.record(index), self.medium, view)


class Lines:
    """Random access to the records of a text file: only where each begins is kept, so that ten million of them take 80
    MB.

    A record is a line, or with `quoted` as many as an open quotation mark runs over (CSV). Empty lines are none.
    """

    def __init__(self, path: Path, quoted: bool = False, skip: int = 0):
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
        self.path = path
        starts, position, inside = [], 0, False
        with open(path, "rb") as file:
            for line in file:
                if line.strip() and not inside:
                    starts.append(position)
                position += len(line)
                inside ^= quoted and line.count(b'"') % 2 == 1
        self.starts = np.array([*starts[skip:], position], dtype=np.int64)
        if not len(self):
            raise SourceError(f"{path} lists nothing")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def record(self, index: int) -> str:
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        # A mark stands at most before the first.
        return text_of(read_range(self.path, start, end - start), f"{self.path} line {index + 1}")


def identity_of(paths: Iterable[Path]) -> str:
    return fingerprint(*((str(path), path.stat().st_size, int(path.stat().st_mtime)) for path in paths))


def fingerprint(*values: object) -> str:
    """Sixteen hexadecimal digits that stand for `values` (strings, numbers, lists of them)."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
