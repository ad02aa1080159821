"""Random access to WebDataset tars."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .mapped import Mapped
from .source import SourceError
from .tar_index import BLOCK, NONE, SAMPLES, TARS, Contents, index_of, selected


class Tars:
    """The samples of WebDataset tars, whose files fall into groups by their endings: a sample has at most one file of
    each. Samples without a file of the first group are left out, and those that `contents.select` does not select.

    Where each file lies is looked up in an index below `index_folder`, of which a process holds the map alone. Tars are
    opened when a sample is read, one at a time.
    """

    def __init__(self, pattern: str, contents: Contents, index_folder: Path):
        self.shards, self.contents = shard_paths(pattern), contents
        self.endings = [[ending for equals in group for ending in equals] for group in contents.groups]
        self.index = index_of(self.shards, contents, index_folder)
        if contents.select is not None and not contents.select.empty:
            self.index = selected(self.index, contents, pattern)
        with np.load(self.index / TARS) as tars:
            self.blocks, self.content = tars["counts"], str(tars["content"])
        self.ends = np.cumsum(self.blocks)
        if not len(self):
            raise SourceError(f"{pattern} holds no samples ending in {', '.join(self.endings[0])}")
        self.samples = Mapped(self.index / SAMPLES, contents.dtype)

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int, group: int) -> tuple[str, tuple[Path, int, int]] | None:
        """Ending and (path, offset, size) of a sample's file in a group, None where it has none."""
        row = self.samples[index]
        ending = int(row["ending"][group])
        if ending == NONE:
            return None
        shard = self.shards[int(np.searchsorted(self.ends, index, side="right"))]
        return self.endings[group][ending], (shard, int(row["block"][group]) * BLOCK, int(row["size"][group]))

    def sizes(self) -> np.ndarray:
        """(width, height) of each sample, 0 where it is not known: `[N, 2]`. Only where its DETAILS are looked up."""
        details = self.samples["details"]
        return np.stack([details["width"], details["height"]], 1)


def shard_paths(pattern: str) -> Sequence[Path]:
    """The tars of a folder, a pattern with braces, or a glob. Raises SourceError for none, or one that is named and not
    there.
    """
    from webdataset.shardlists import expand_urls  # and with it torch, which takes a second to import

    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    # In braces a backslash escapes, and on Windows it parts folders.
    names = expand_urls(Path(pattern).as_posix()) if "{" in pattern else sorted(glob.glob(pattern))
    if not names:
        raise SourceError(f"{pattern}: no such tars")
    if "{" in pattern and (missing := [name for name in names if not os.path.isfile(name)]):
        raise SourceError(f"{pattern}: {len(missing)} of {len(names)} tars are missing, the first {missing[0]}")
    return [Path(name) for name in names]
