"""WebDataset tars of clips or images, as img2dataset and video2dataset write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np

from .files import ENDINGS, Listing, identity_of
from .record import Record, caption_of, read_range, text_of
from .select import Select
from .source import CONTENT, BrokenSample, Source
from .tar_index import Contents
from .tars import Tars

CAPTION = ((".txt",), (".json",))


class Shards(Source):
    """WebDataset tars as img2dataset and video2dataset write them: `<key>.jpg` or `.mp4` (or another ending) with
    `<key>.txt` or `caption` in `<key>.json`. `select` goes by that JSON (`width`, `height`, `pwatermark`, `aesthetic`),
    and by a picture's own size where it has none.
    """

    location = ("path",)
    kind: Literal["shards"]
    path: str  # a folder, or a pattern such as laion/{00000..00127}.tar or webvid/*.tar
    select: Select | None = None

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> ShardListing:
        return ShardListing(self.path, medium, index_folder, self.select or (Select() if sized else None))


class ShardListing(Listing):
    def __init__(self, pattern: str, medium: str, index_folder: Path, select: Select | None = None):
        super().__init__(medium)
        contents = Contents(((ENDINGS[medium],), CAPTION), select)
        self.tars = Tars(pattern, contents, index_folder)
        self.blocks = self.tars.blocks

    def __len__(self) -> int:
        return len(self.tars)

    def identity(self) -> str:
        return identity_of(self.tars.shards)

    def content(self) -> str:
        return f"{CONTENT}{self.tars.content}"

    def sizes(self) -> np.ndarray | None:
        return self.tars.sizes() if self.tars.contents.select is not None else None

    def record(self, index: int) -> Record:
        media = self.tars.place(index, 0)
        assert media  # a sample without a file of the first group is none
        ending, place = media
        name = f"{place[0]}, sample {index} (a {ending} at byte {place[1]})"
        return Record(name, self._caption(index, name), place, ending)

    def _caption(self, index: int, name: str) -> str:
        file = self.tars.place(index, 1)
        content = read_range(*file[1]) if file else b"{}"
        if file and file[0] == ".txt":
            return caption_of(text_of(content, name), name)
        try:
            return caption_of(json.loads(content)["caption"], name)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenSample(f"{name} has neither a .txt nor a .json with a caption ({error!r})") from error
