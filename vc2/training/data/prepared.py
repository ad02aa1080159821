"""Encoded samples on disk: latent moments, and captions' features if asked for, in WebDataset tars.

The folder's name carries a fingerprint of everything that its content depends on: the source's files (names, sizes,
times; of webvid and journeydb the list alone), the picture size and crop, the autoencoder and the text encoder. Change
one of them and the cache is another; it can never be read with the wrong networks. It stores moments and not samples,
so that training still draws from them.
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
from ..sources.source import BrokenSample, Reader, Sample, SourceError, View
from ..sources.tars import Tars

SHARD = 512  # samples a tar
MOMENTS, TEXT, TABLE = ".moments.npy", ".text.npy", ".json"
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
    """What `prepare` has written of one source."""

    def __init__(self, folder: Path, index_folder: Path):
        self.tars = Tars(str(folder), ((MOMENTS,), (TEXT,), (TABLE,)), index_folder)
        self.blocks = self.tars.blocks
        if (folder / EMPTY).is_file():
            self.empty_text = torch.from_numpy(np.load(folder / EMPTY))

    @classmethod
    def find(cls, recipe: Recipe, medium: str, identity: str, cache: Path, networks: dict[str, str]) -> Prepared:
        """Raises SourceError where it is not finished. Arguments as of `cache_folder`."""
        folder = cache_folder(recipe, medium, identity, cache, networks)
        if not (folder / INDEX).is_file():
            written = f", of which {len(list(folder.glob('*.tar')))} tars are there" if folder.is_dir() else ""
            raise SourceError(
                f"data.{medium} is to be read from {folder}, which is not finished{written}; run `python -m"
                " vc2.training prepare` with this recipe first"
            )
        return cls(folder, cache / "index")

    def __len__(self) -> int:
        return len(self.tars)

    def identity(self) -> str:
        return identity_of(self.tars.shards)

    def sample(self, index: int) -> Stored:
        """All that is stored of a sample. Raises BrokenSample."""

        def load(group: int) -> bytes | None:
            place = self.tars.place(index, group)
            return read_range(*place[1]) if place else None

        moments, text, table = load(0), load(1), load(2)
        try:
            about = json.loads(table or b"")
            frames = torch.from_numpy(np.load(io.BytesIO(moments or b"")))
            features = torch.from_numpy(np.load(io.BytesIO(text))) if text else None
        except (ValueError, EOFError) as error:
            raise BrokenSample(f"{self.tars.place(index, 0)} was not written whole: {error}") from error
        return Stored(frames, about["caption"], about["fps"], about["frozen"], features)

    def read(self, index: int, view: View) -> Sample:
        stored = self.sample(index)
        view = replace(view, strides=(1, 1)) if stored.frozen else view
        stride, first = view.choose(len(stored.frames))
        frames = stored.frames[first::stride][: view.frames]
        return Sample(frames, stored.caption, stored.fps / stride, stored.text)


def cache_folder(recipe: Recipe, medium: str, identity: str, cache: Path, networks: dict[str, str]) -> Path:
    """Where the prepared samples of a recipe's source lie. `identity`: the source's; `networks`: fingerprints of
    "autoencoder" and "text".
    """
    data, source = recipe.data, recipe.data.sources[medium]
    contents = [source.model_dump(mode="json"), identity, data.width, data.height, data.crop, networks["autoencoder"]]
    if source.prepared == "moments and text":
        contents.append(networks["text"])
    if medium == "clips" and not source.stored_whole:
        contents += [list(data.lengths), recipe.seed]
    elif data.crop == "random":  # drawn once, when it is encoded
        contents.append(recipe.seed)
    return cache / f"{source.kind}-{medium}-{fingerprint(*contents)}"
