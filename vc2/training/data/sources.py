"""Data sets as lists: every source has a length, and gives the record of an index. Nothing is decoded here.

A list, and not a stream, is what makes a batch a function of (seed, step) alone: a run resumes at any step, and any
number of processes reads the same batches.
"""

from __future__ import annotations

import csv
import glob
import hashlib
import io
import json
import logging
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from tqdm import tqdm
from webdataset.shardlists import expand_urls

from .. import config

log = logging.getLogger(__name__)

VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif")
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".avif")
ENOUGH = 200  # samples before the share of broken ones says anything


class SourceError(ValueError):
    """A data set that cannot be read; the message names the file, what was expected and what was found."""


class BrokenSample(Exception):  # noqa: N818 (it is skipped, not raised to the user)
    """One sample that cannot be used; the message says why."""


@dataclass(frozen=True)
class Record:
    """One sample, unread: a name for messages, its caption, and its file: a path, or the bytes in a tar as (path,
    offset, size).
    """

    name: str
    caption: str
    file: Path | tuple[Path, int, int]
    ending: str

    def open(self) -> IO[bytes]:
        if isinstance(self.file, Path):
            return open(self.file, "rb")
        return io.BytesIO(read_range(*self.file))


class Listing(Protocol):
    """What a source looks like to the rest. `blocks`: lengths of the runs of indices that lie in one file, None where
    order on disk does not matter.
    """

    blocks: Sequence[int] | None

    def __len__(self) -> int: ...

    def record(self, index: int) -> Record:
        """Raises BrokenSample where the listing itself is broken there."""

    def identity(self) -> str:
        """Other files, another identity: by names, sizes and times, of captions too."""


def identity_of(paths: Iterable[Path]) -> str:
    return fingerprint(*((str(path), path.stat().st_size, int(path.stat().st_mtime)) for path in paths))


def caption_of(text: object, name: str) -> str:
    """On one line. Raises BrokenSample where it is none: captions are left empty by `data.caption_dropout`, and not by
    chance.
    """
    if not isinstance(text, str) or not (words := " ".join(text.split())):
        raise BrokenSample(f"{name} has {text!r} for a caption")
    return words


def read_range(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


class FolderListing:
    """Files below a folder with a caption beside each."""

    blocks: Sequence[int] | None = None

    def __init__(self, folder: Path, endings: tuple[str, ...]):
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
        found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
        self.files = [path for path in found if path.with_suffix(".txt").is_file()]
        if not self.files:
            raise SourceError(
                f"{folder} holds {len(found)} files ending in {', '.join(endings)}, none with a caption beside it;"
                f" expected e.g. cat{endings[0]} and cat.txt"
            )
        if len(self.files) < len(found):
            bare = [str(path) for path in found if not path.with_suffix(".txt").is_file()]
            names = ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else "")
            log.warning(
                "%s: %d of %d files have no .txt with a caption beside them and are left out: %s",
                folder,
                len(bare),
                len(found),
                names,
            )

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> str:
        return identity_of(path for file in self.files for path in (file, file.with_suffix(".txt")))

    def record(self, index: int) -> Record:
        path = self.files[index]
        caption = path.with_suffix(".txt").read_text(encoding="utf-8", errors="replace")
        return Record(str(path), caption_of(caption, str(path)), path, path.suffix.lower())


class Lines:
    """Random access to the records of a text file: only where each begins is kept, so that ten million of them take 80
    MB.

    A record is a line, or with `quoted` as many as an open quotation mark runs over (CSV). Empty lines are none.
    """

    def __init__(self, path: Path, quoted: bool = False, skip: int = 0):
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
        self.path = path
        starts, position, inside = [], 0, False
        with open(path, "rb") as file:
            for line in file:
                if line.strip() and not inside:
                    starts.append(position)
                position += len(line)
                inside ^= quoted and line.count(b'"') % 2 == 1
        self.starts = np.array([*starts[skip:], position], dtype=np.int64)
        if not len(self):
            raise SourceError(f"{path} lists nothing")

    def __len__(self) -> int:
        return len(self.starts) - 1

    def record(self, index: int) -> str:
        start, end = int(self.starts[index]), int(self.starts[index + 1])
        return read_range(self.path, start, end - start).decode("utf-8", errors="replace")


class WebVidListing:
    blocks: Sequence[int] | None = None
    NEEDED = ("videoid", "page_dir", "name")

    def __init__(self, source: config.WebVid):
        self.root = source.videos
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder (data.clips.videos)")
        self.lines = Lines(source.csv, quoted=True, skip=1)
        with open(source.csv, encoding="utf-8", newline="") as file:
            self.header = next(csv.reader(file))
        missing = [name for name in self.NEEDED if name not in self.header]
        if missing:
            raise SourceError(
                f"{source.csv} has no column {', '.join(missing)}; expected WebVid's {', '.join(self.NEEDED)}, found"
                f" {', '.join(self.header)}"
            )

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, index: int) -> Record:
        row = next(csv.reader(io.StringIO(self.lines.record(index), newline="")))
        name = f"{self.lines.path} row {index + 1}"
        if len(row) != len(self.header):
            raise BrokenSample(f"{name} has {len(row)} fields, expected {len(self.header)}")
        fields = dict(zip(self.header, row, strict=True))
        path = self.root / fields["page_dir"] / f"{fields['videoid']}.mp4"
        return Record(str(path), caption_of(fields["name"], name), path, ".mp4")

    def identity(self) -> str:
        return identity_of([self.lines.path])


class JourneyDBListing:
    blocks: Sequence[int] | None = None

    def __init__(self, source: config.JourneyDB):
        self.root, self.caption = source.images, source.caption
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder (data.images.images)")
        self.lines = Lines(source.jsonl)

    def __len__(self) -> int:
        return len(self.lines)

    def record(self, index: int) -> Record:
        name = f"{self.lines.path} line {index + 1}"
        try:
            row = json.loads(self.lines.record(index))
            path, caption = self.root / row["img_path"], row[self.caption]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BrokenSample(f"{name} is not a JSON object with img_path and {self.caption}: {error!r}") from error
        return Record(str(path), caption_of(caption, name), path, path.suffix.lower())

    def identity(self) -> str:
        return identity_of([self.lines.path])


class Tars:
    """Random access to the samples of WebDataset tars, whose files fall into `groups` by their endings: a sample has at
    most one file of each.

    Where each file lies is found once, by reading the tars' headers, and kept in `index_folder`; a sample takes 24
    bytes a group there. Samples without a file of the first group are no samples.
    """

    def __init__(self, pattern: str, groups: tuple[tuple[str, ...], ...], index_folder: Path):
        self.shards, self.groups = shard_paths(pattern), groups
        shown = tqdm(self.shards, desc="reading the tars' tables", unit="tar", disable=len(self.shards) < 20)
        self.tables = [
            tar_index(path, groups, index_folder) for path in shown
        ]  # each [samples, groups, (ending, offset, size)]
        self.blocks = [len(table) for table in self.tables]
        self.ends = np.cumsum(self.blocks)
        if not len(self):
            raise SourceError(f"{pattern} holds no samples ending in {', '.join(groups[0])}")

    def __len__(self) -> int:
        return int(self.ends[-1])

    def place(self, index: int, group: int) -> tuple[str, tuple[Path, int, int]] | None:
        """Ending and (path, offset, size) of a sample's file in a group, None where it has none."""
        shard = int(np.searchsorted(self.ends, index, side="right"))
        ending, offset, size = (
            int(v) for v in self.tables[shard][index - (int(self.ends[shard - 1]) if shard else 0), group]
        )
        return None if ending < 0 else (self.groups[group][ending], (self.shards[shard], offset, size))


class ShardListing:
    """img2dataset's and video2dataset's tars."""

    def __init__(self, pattern: str, endings: tuple[str, ...], index_folder: Path):
        self.tars = Tars(pattern, (endings, (".txt",), (".json",)), index_folder)
        self.blocks: Sequence[int] | None = self.tars.blocks

    def __len__(self) -> int:
        return len(self.tars)

    def record(self, index: int) -> Record:
        media = self.tars.place(index, 0)
        assert media
        ending, place = media
        name = f"{place[0]}, sample {index} (a {ending} at byte {place[1]})"
        return Record(name, self._caption(index, name), place, ending)

    def identity(self) -> str:
        return identity_of(self.tars.shards)

    def _caption(self, index: int, name: str) -> str:
        text, table = self.tars.place(index, 1), self.tars.place(index, 2)
        if text:
            return caption_of(read_range(*text[1]).decode("utf-8", errors="replace"), name)
        try:
            return caption_of(json.loads(read_range(*table[1]) if table else "{}")["caption"], name)
        except (KeyError, TypeError, ValueError) as error:
            raise BrokenSample(f"{name} has neither a .txt nor a .json with a caption ({error!r})") from error


def shard_paths(pattern: str) -> list[Path]:
    """The tars of a folder, a pattern with braces, or a glob. Raises SourceError for none, or one that is named and not
    there.
    """
    if os.path.isdir(pattern):
        pattern = os.path.join(glob.escape(pattern), "*.tar")
    names = expand_urls(pattern) if "{" in pattern else sorted(glob.glob(pattern))
    missing = [name for name in names if not os.path.isfile(name)]
    if missing or not names:
        raise SourceError(
            f"{pattern}: "
            + (f"{len(missing)} of {len(names)} tars are missing, the first {missing[0]}" if names else "no such tars")
        )
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
    for files in _scan(path):
        row = [
            next(((group.index(ending), *place) for ending, place in files.items() if ending in group), (-1, 0, 0))
            for group in groups
        ]
        if row[0][0] >= 0:
            rows.append(row)
    table = np.array(rows, dtype=np.int64).reshape(-1, len(groups), 3)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        dir=folder, suffix=".tmp", delete=False
    ) as file:  # several processes, perhaps on several machines, may write it at once
        np.save(file, table)
    os.replace(file.name, cached)
    return table


def fingerprint(*parts: object) -> str:
    """Sixteen hexadecimal digits that stand for `parts` (strings, numbers, lists of them)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _scan(path: Path) -> Iterator[dict[str, tuple[int, int]]]:
    """WebDataset's rule: files that follow one another and share the name up to the first dot are one sample. {ending:
    (offset, size)}.
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


def open_listing(source: config.Source, medium: str, index_folder: Path) -> Listing:
    """The listing of a recipe's source; `medium` is "clips" or "images". Procedural sources are listed by `procedural`.
    Raises SourceError.
    """
    endings = VIDEO_ENDINGS if medium == "clips" else IMAGE_ENDINGS
    if isinstance(source, config.Folder):
        return FolderListing(source.path, endings)
    if isinstance(source, config.WebVid):
        return WebVidListing(source)
    if isinstance(source, config.JourneyDB):
        return JourneyDBListing(source)
    if isinstance(source, config.Shards):
        return ShardListing(source.path, endings, index_folder)
    raise SourceError(f"{type(source).__name__} lists no files")
