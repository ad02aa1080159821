"""WebVid-10M, clips that the paper's first stage trains on."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Literal

from .files import Listing, identity_of
from .lines import Lines
from .record import Record, caption_of
from .source import CONTENT, BrokenSample, Source, SourceError

NEEDED = ("videoid", "page_dir", "name")


class WebVid(Source):
    """WebVid-10M: a CSV with `videoid`, `page_dir` and `name` (the caption), and `<page_dir>/<videoid>.mp4` below
    `videos`.
    """

    media = ("clips",)
    location = ("csv", "videos")
    kind: Literal["webvid"]
    csv: Path
    videos: Path

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> WebVidListing:
        return WebVidListing(self.csv, self.videos, index_folder)


class WebVidListing(Listing):
    def __init__(self, table: Path, videos: Path, index_folder: Path):
        super().__init__("clips")
        self.root = videos
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder (data.clips.videos)")
        self.lines = Lines(table, index_folder, quoted=True, skip=1)
        self.header = self.lines.header()
        if missing := [name for name in NEEDED if name not in self.header]:
            raise SourceError(
                f"{table} has no column {', '.join(missing)}; expected WebVid's {', '.join(NEEDED)}, found"
                f" {', '.join(self.header)}"
            )

    def __len__(self) -> int:
        return len(self.lines)

    def identity(self) -> str:
        return identity_of([self.lines.path])

    def content(self) -> str:
        return f"{CONTENT}{self.lines.content}"

    def record(self, index: int) -> Record:
        row = next(csv.reader(io.StringIO(self.lines.record(index), newline="")))
        name = f"{self.lines.path} row {index + 1}"
        if len(row) != len(self.header):
            raise BrokenSample(f"{name} has {len(row)} fields, expected {len(self.header)}")
        fields = dict(zip(self.header, row, strict=True))
        path = self.root / fields["page_dir"] / f"{fields['videoid']}.mp4"
        return Record(str(path), caption_of(fields["name"], name), path, ".mp4")
