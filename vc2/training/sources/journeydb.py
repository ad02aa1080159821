"""JourneyDB, images that the paper's second stage trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from .files import Listing, identity_of
from .lines import Lines
from .record import Record, caption_of
from .rows import json_row
from .source import CONTENT, BrokenSample, Source, SourceError


class JourneyDB(Source):
    """JourneyDB: a JSON object a line with `img_path` (below `images`) and the caption under `caption`, by default the
    Midjourney prompt.
    """

    location = ("jsonl", "images")
    kind: Literal["journeydb"]
    jsonl: Path
    images: Path
    caption: str = "prompt"

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> JourneyDBListing:
        return JourneyDBListing(self, medium, index_folder)


class JourneyDBListing(Listing):
    def __init__(self, source: JourneyDB, medium: str, index_folder: Path):
        super().__init__(medium)
        self.root, self.caption = source.images, source.caption
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder (data.{medium}.images)")
        self.lines = Lines(source.jsonl, index_folder)

    def __len__(self) -> int:
        return len(self.lines)

    def identity(self) -> str:
        return identity_of([self.lines.path])

    def content(self) -> str:
        return f"{CONTENT}{self.lines.content}"

    def record(self, index: int) -> Record:
        name = f"{self.lines.path} line {index + 1}"
        row = json_row(self.lines.record(index), name)
        try:
            path, caption = self.root / str(row["img_path"]), row[self.caption]
        except KeyError as error:
            raise BrokenSample(f"{name} has no {error}; expected img_path and {self.caption}") from error
        return Record(str(path), caption_of(caption, name), path, path.suffix.lower())
