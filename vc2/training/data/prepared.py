"""Encoded samples on disk: latent moments, and captions' features if asked for, in WebDataset tars.

The folder's name carries a fingerprint of everything that its content depends on: the source's data, wherever it lies
(of webvid, journeydb and manifest the list alone), the picture sizes and crop, the autoencoder and the text encoder.
Change one of them and the cache is another; it can never be read with the wrong networks. It stores moments and not
samples, so that training still draws from them.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..recipe import Recipe
from ..sources.files import fingerprint, identity_of
from ..sources.record import read_range
from ..sources.select import Select
from ..sources.source import BrokenSample, Reader, Sample, Source, SourceError, View
from ..sources.tar_index import Contents
from ..sources.tars import Tars

SHARD = 512  # samples a tar
MOMENTS, TEXT, TABLE, FLIPPED = ".moments.npy", ".text.npy", ".json", ".flipped.npy"
INDEX, EMPTY = "cache.json", "empty.npy"


@dataclass
class Stored:
    """`frozen`: the frames are a finished clip, whose stride was drawn when it was encoded."""

    frames: Tensor
    caption: str
    fps: float
    frozen: bool
    text: Tensor | None


class Prepared(Reader):
    """What `prepare` has written of one source. `sized`: with the sizes of its pictures."""

    def __init__(self, folder: Path, index_folder: Path, sized: bool = False):
        groups = tuple(((ending,),) for ending in (MOMENTS, TEXT, TABLE, FLIPPED))
        self.tars = Tars(str(folder), Contents(groups, select=Select() if sized else None), index_folder)
        self.blocks = self.tars.blocks
        if (folder / EMPTY).is_file():
            self.empty_text = torch.from_numpy(np.load(folder / EMPTY))

    @classmethod
    def find(
        cls, recipe: Recipe, medium: str, section: Source, source: Reader, cache: Path, networks: dict[str, str]
    ) -> Prepared:
        """Raises SourceError where it is not finished. Arguments as of `folder_of`."""
        folder = folder_of(recipe, medium, section, source, cache, networks)
        if not (folder / INDEX).is_file():
            written = f", of which {len(list(folder.glob('*.tar')))} tars are there" if folder.is_dir() else ""
            raise SourceError(
                f"data.{medium} is to be read from {folder}, which is not finished{written}; run `python -m"
                " vc2.training prepare` with this recipe first"
            )
        return cls(folder, cache / "index", sized=len(recipe.data.image_sizes) > 1 and medium == "images")

    def __len__(self) -> int:
        return len(self.tars)

    def identity(self) -> str:
        return identity_of(self.tars.shards)

    def sizes(self) -> np.ndarray | None:
        return self.tars.sizes() if self.tars.contents.select is not None else None

    def sample(self, index: int, flipped: bool = False) -> Stored:
        """All that is stored of a sample, its frames as they are or `flipped`. Raises BrokenSample."""

        def load(group: int) -> bytes | None:
            place = self.tars.place(index, group)
            return read_range(*place[1]) if place else None

        moments, text, table = load(3 if flipped else 0), load(1), load(2)
        try:
            about = json.loads(table or b"")
            frames = torch.from_numpy(np.load(io.BytesIO(moments or b"")))
            features = torch.from_numpy(np.load(io.BytesIO(text))) if text else None
        except (ValueError, EOFError) as error:
            raise BrokenSample(f"{self.tars.place(index, 0)} was not written whole: {error}") from error
        return Stored(frames, about["caption"], about["fps"], about["frozen"], features)

    def read(self, index: int, view: View) -> Sample:
        stored = self.sample(index, view.flipped)
        view = replace(view, strides=(1, 1)) if stored.frozen else view
        stride, first = view.choose(len(stored.frames))
        frames = stored.frames[first::stride][: view.frames]
        return Sample(frames, stored.caption, stored.fps / stride, stored.text)


def folder_of(
    recipe: Recipe, medium: str, section: Source, source: Reader, cache: Path, networks: dict[str, str]
) -> Path:
    """Where the prepared samples of a source (a `section` of the recipe, opened) lie: where 0.2.0 began to write them,
    by the place and times of the source's files, or else by what they are. `networks`: fingerprints of "autoencoder"
    and "text".
    """
    by_files = cache_folder(recipe, medium, source.identity(), cache, networks, section)
    if by_files.is_dir():
        return by_files
    return cache_folder(recipe, medium, source.content(), cache, networks, section, located=False)


def cache_folder(
    recipe: Recipe,
    medium: str,
    identity: str,
    cache: Path,
    networks: dict[str, str],
    section: Source | None = None,
    located: bool = True,
) -> Path:
    """The folder of a source that is known by `identity`; `located`: and by where the recipe says it lies."""
    data, source = recipe.data, section or recipe.data.sources[medium]
    selecting = source.selecting()
    if not located:
        selecting = {key: value for key, value in selecting.items() if key not in source.location}
    contents = [selecting, identity, data.width, data.height, data.crop, networks["autoencoder"]]
    if source.prepared == "moments and text":
        contents.append(networks["text"])
    if medium == "clips" and not source.stored_whole:
        contents += [list(data.lengths), recipe.seed]
    elif data.crop == "random":  # drawn once, when it is encoded
        contents.append(recipe.seed)
    if medium == "images" and data.buckets:
        contents.append({"buckets": data.buckets})
    if data.flip:
        contents.append("flipped too")
    return cache / f"{source.kind}-{medium}-{fingerprint(*contents)}"
