"""Random access to WebDataset tars."""

from __future__ import annotations

import glob
import os
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from .files import fingerprint
from .source import SourceError


class Tars:
    """The samples of WebDataset tars, whose files fall into `groups` by their endings: a sample has at most one file
    of each. Samples without a file of the first group are left out.

    Where each file lies is found out once, by reading the tars' headers, and kept in `index_folder`; a sample takes 24
    bytes a group there.
    """

    def __init__(self, pattern: str, groups: tuple[tuple[str, ...], ...], index_folder: Path):
        self.shards, self.groups = shard_paths(pattern), groups
        shards = tqdm(self.shards, desc="indexing tars", unit="tar", disable=len(self.shards) < 20)
        # Each [samples, groups, (ending, offset, size)].
        self.tables = [tar_index(path, groups, index_folder) for path in shards]
        self.blocks = [len(table) for table in self.tables]
        self.ends = np.cumsum(self.blocks)
        if not len(self):
            raise SourceError(f"{pattern} holds no samples ending in {', '.join(groups[0])}")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int, group: int) -> tuple[str, tuple[Path, int, int]] | None:
        """Ending and (path, offset, size) of a sample's file in a group, None where it has none."""
        shard = int(np.searchsorted(self.ends, index, side="right"))
        first = int(self.ends[shard - 1]) if shard else 0
        ending, offset, size = (int(v) for v in self.tables[shard][index - first, group])
        return None if ending < 0 else (self.groups[group][ending], (self.shards[shard], offset, size))


def shard_paths(pattern: str) -> list[Path]:
    """The tars of a folder, a pattern with braces, or a glob. Raises SourceError for none, or one that is named and not
    there.
    """
    from webdataset.shardlists import expand_urls  # and with it torch, which takes a second to import

    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    names = expand_urls(pattern) if "{" in pattern else sorted(glob.glob(pattern))
    if not names:
        raise SourceError(f"{pattern}: no such tars")
    if missing := [name for name in names if not os.path.isfile(name)]:
        raise SourceError(f"{pattern}: {len(missing)} of {len(names)} tars are missing, the first {missing[0]}")
    return [Path(name) for name in names]


def tar_index(path: Path, groups: tuple[tuple[str, ...], ...], folder: Path) -> np.ndarray:
    """`[samples, groups, 3]`: which of the group's endings (-1: none), offset and size. Kept in `folder` under the
    tar's path, size and time.
    """
    stat = path.stat()
    cached = folder / f"{path.stem}-{fingerprint(str(path.resolve()), stat.st_size, stat.st_mtime_ns, groups)}.npy"
    if cached.is_file():
        return np.load(cached, mmap_mode="r")  # all processes of a machine share the pages
    rows = []
    for files in _samples(path):
        row = [
            next(((group.index(ending), *place) for ending, place in files.items() if ending in group), (-1, 0, 0))
            for group in groups
        ]
        if row[0][0] >= 0:
            rows.append(row)
    table = np.array(rows, dtype=np.int64).reshape(-1, len(groups), 3)
    folder.mkdir(parents=True, exist_ok=True)
    # Several processes, perhaps on several machines, may write it at once.
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".tmp", delete=False) as file:
        np.save(file, table)
    os.replace(file.name, cached)
    return table


def _samples(path: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """{ending: (offset, size)} of each sample. WebDataset's rule: files that follow one another and share the name up
    to the first dot are one.
    """
    key: str | None = None
    files: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, dot, ending = os.path.basename(member.name).partition(".")
                name = os.path.join(os.path.dirname(member.name), stem)
                if name != key and files:
                    yield files
                    files = {}
                key = name
                files[(dot + ending).lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise SourceError(f"{path} is not an uncompressed tar, or is cut short: {error}") from error
    if files:
        yield files
