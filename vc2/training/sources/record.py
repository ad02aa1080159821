"""A sample in a file, unread: what every list of files gives, and `media` decodes."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .source import BrokenSample


@dataclass(frozen=True)
class Record:
    """A name for messages, a caption, and a file: a path, or the bytes in a tar as (path, offset, size)."""

    name: str
    caption: str
    file: Path | tuple[Path, int, int]
    ending: str

    def open(self) -> IO[bytes]:
        if isinstance(self.file, Path):
            return open(self.file, "rb")
        return io.BytesIO(read_range(*self.file))


def read_range(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


def caption_of(text: object, name: str) -> str:
    """The caption on one line. Raises BrokenSample where there is none: captions are left empty by
    `data.caption_dropout`, and not by chance.
    """
    if not isinstance(text, str) or not (caption := " ".join(text.split())):
        raise BrokenSample(f"{name} has {text!r} for a caption")
    return caption
