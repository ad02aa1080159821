"""WebDataset tars of clips or images, as img2dataset and video2dataset write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from .files import ENDINGS, Listing, identity_of
from .record import Record, caption_of, read_range, text_of
from .source import BrokenSample, Source
from .tars import Tars


class Shards(Source):
    """WebDataset tars as img2dataset and video2dataset write them: `<key>.jpg` or `.mp4` (or another ending) with
    `<key>.txt` or `caption` in `<key>.json`.
    """

    kind: Literal["shards"]
    path: str  # a folder, or a pattern such as laion/{00000..00127}.tar or webvid/*.tar

    def open(self, medium: str, index_folder: Path) -> ShardListing:
        return ShardListing(self.path, medium, index_folder)


class ShardListing(Listing):
    def __init__(self, pattern: str, medium: str, index_folder: Path):
        super().__init__(medium)
        self.tars = Tars(pattern, (ENDINGS[medium], (".txt",), (".json",)), index_folder)
        self.blocks = self.tars.blocks

    def __len__(self) -> int:
        return len(self.tars)

    def identity(self) -> str:
        return identity_of(self.tars.shards)

    def record(self, index: int) -> Record:
        media = self.tars.place(index, 0)
        assert media  # a sample without a file of the first group is none
        ending, place = media
        name = f"{place[0]}, sample {index} (a {ending} at byte {place[1]})"
        return Record(name, self._caption(index, name), place, ending)

    def _caption(self, index: int, name: str) -> str:
        text, table = self.tars.place(index, 1), self.tars.place(index, 2)
        if text:
            return caption_of(text_of(read_range(*text[1]), name), name)
        try:
            return caption_of(json.loads(read_range(*table[1]) if table else "{}")["caption"], name)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenSample(f"{name} has neither a .txt nor a .json with a caption ({error!r})") from error
