"""Lists of files with captions."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path

from .record import Record
from .source import CONTENT, Reader, Sample, View

ENDINGS = {
    "clips": (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"),
    "images": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif"),
}

HEADS, HEAD = 4096, 2**14  # files that are looked into, and how many bytes of each


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


def identity_of(paths: Iterable[Path]) -> str:
    stats = ((path, path.stat()) for path in paths)
    return fingerprint(*((str(path), stat.st_size, int(stat.st_mtime)) for path, stat in stats))


def content_of(root: Path, files: Sequence[Path], captions: Sequence[Path]) -> str:
    """What files below `root` are, wherever that lies: their names and sizes, the first bytes of up to HEADS of them
    (evenly spread), and all of their captions.
    """
    digest = hashlib.sha256()
    looked_at = set(range(0, len(files), -(-len(files) // HEADS)))
    for n, (path, caption) in enumerate(zip(files, captions, strict=True)):
        about = f"{path.relative_to(root).as_posix()} {path.stat().st_size}\n"
        digest.update(about.encode(errors="backslashreplace"))  # a name may be no text
        if n in looked_at:
            with open(path, "rb") as file:
                digest.update(file.read(HEAD))
        digest.update(caption.read_bytes())
    return f"{CONTENT}{digest.hexdigest()[:16]}"


def fingerprint(*values: object) -> str:
    """Sixteen hexadecimal digits that stand for `values` (strings, numbers, lists of them)."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]
