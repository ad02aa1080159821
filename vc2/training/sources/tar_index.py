"""The index of WebDataset tars: where the files of each sample lie, and what is known of them, in one file that all
processes map. It is made once, by all of them together, by reading the tars' headers.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np

from ...files.output import whole
from ...plural import plural
from .files import ENDINGS, fingerprint
from .mapped import Mapped
from .once import complete, touch
from .rows import json_row
from .select import DETAILS, NOTHING, Select, Selection, size_of_bytes
from .source import BrokenSample, SourceError

log = logging.getLogger(__name__)

SAMPLES, TARS = "samples.bin", "tars.npz"
PART = 32  # tars that a process scans at a time
ROWS = 2**20  # samples that are selected from at a time
BLOCK = 512  # bytes: what a tar is made of, and offsets are counted in
NONE = 255  # for an ending: the sample has no file of this group
TEXTS = (".txt", ".json")  # whose content belongs to the data's fingerprint; a picture is told by its size
LAYOUT = 1  # of these files; another is another index

Group = tuple[tuple[str, ...], ...]  # endings in order of preference; those of one tuple are equals


@dataclass(frozen=True)
class Contents:
    """What is looked up of each sample: a file of each of `groups`, and its DETAILS where there is a `select`."""

    groups: tuple[Group, ...]
    select: Select | None = None

    @property
    def dtype(self) -> np.dtype:
        """Nine bytes a group, 12 for DETAILS."""
        n = (len(self.groups),)
        fields: list[tuple] = [("ending", "u1", n), ("block", "<u4", n), ("size", "<u4", n)]
        if self.select is not None:
            fields += [("details", DETAILS)]
        return np.dtype(fields)

    @property
    def key(self) -> object:
        columns = None if self.select is None else [self.select.watermark, self.select.aesthetic]
        return [LAYOUT, self.groups, columns]


def index_folder(shards: Sequence[Path], contents: Contents, folder: Path) -> Path:
    """Where the index of these tars is below `folder`, or will be. It goes by the tars' names, sizes and times, and not
    by where they lie.
    """
    with ThreadPoolExecutor(16) as pool:  # a network file system answers many at once
        stats = list(pool.map(os.stat, shards))
    root = os.path.commonpath([path.parent for path in shards])
    files = [(os.path.relpath(path, root), s.st_size, s.st_mtime_ns) for path, s in zip(shards, stats, strict=True)]
    return folder / f"{shards[0].stem}-{fingerprint(contents.key, files)}"


def index_of(shards: Sequence[Path], contents: Contents, folder: Path) -> Path:
    """The folder with the index of these tars: SAMPLES, an array of `contents.dtype`, and TARS, with `counts` of the
    samples in each and a fingerprint of the `content` of all. It is made where it is not there. Raises SourceError for
    what is no tar.
    """
    index = index_folder(shards, contents, folder)
    if (index / SAMPLES).is_file():
        return index
    parts = [index / "parts" / f"{n:06d}.npz" for n in range(-(-len(shards) // PART))]

    def scan_part(n: int) -> None:
        tables, digests = [], []
        for path in shards[n * PART : (n + 1) * PART]:
            touch(parts[n])
            table, digest = scan(path, contents)
            tables.append(table)
            digests.append(digest)
        with whole(parts[n]) as path, open(path, "wb") as file:
            counts = np.array([len(table) for table in tables])
            np.savez(file, samples=np.concatenate(tables), counts=counts, content=np.array(digests))

    def join(_: int) -> None:
        counts, digests = [], []
        for part in parts:
            with np.load(part) as content:
                counts.append(content["counts"])
                digests += content["content"].tolist()
        with whole(index / SAMPLES) as path, open(path, "wb") as file:
            for part in parts:
                touch(index / SAMPLES)
                with np.load(part) as content:
                    file.write(content["samples"].tobytes())
            save_tars(index, np.concatenate(counts), fingerprint(digests))
        shutil.rmtree(index / "parts", ignore_errors=True)

    if not (index / "parts").is_dir():
        log.info("%s: indexing %s, once; all processes share the work", folder, plural(len(shards), "tar"))
    # Once they are joined the parts are gone; a process that comes late must not make them again.
    complete(parts, scan_part, f"indexing {plural(len(shards), 'tar')}", until=index / SAMPLES)
    complete([index / SAMPLES], join, "joining the index")
    return index


def selected(index: Path, contents: Contents, name: str) -> Path:
    """The folder with the index of those samples of another that `contents.select` selects, made where it is not there.
    Raises SourceError where none is.
    """
    criteria = contents.select
    assert criteria
    asked = criteria.model_dump(mode="json")
    folder = index.with_name(f"{index.name}-{fingerprint(asked)}")

    def select(_: int) -> None:
        samples, selection = Mapped(index / SAMPLES, contents.dtype), Selection(criteria)
        good = np.empty(len(samples), bool)
        for first in range(0, len(samples), ROWS):
            touch(folder / SAMPLES)
            good[first : first + ROWS] = selection(samples["details"][first : first + ROWS])
        tars = np.load(index / TARS)
        ends = np.concatenate([[0], np.cumsum(tars["counts"])])
        counts = np.array([np.count_nonzero(good[start:end]) for start, end in pairwise(ends)])
        with whole(folder / SAMPLES) as path, open(path, "wb") as file:
            for first in range(0, len(samples), ROWS):
                touch(folder / SAMPLES)
                file.write(samples[first : first + ROWS][good[first : first + ROWS]].tobytes())
            save_tars(folder, counts, str(tars["content"]), str(selection))

    complete([folder / SAMPLES], select, "selecting")
    with np.load(folder / TARS) as tars:
        log.info("%s: %s", name, tars["selection"])
        if not tars["counts"].sum():
            raise SourceError(
                f"{name}: {tars['selection']}; lower what `select` asks, or give the samples' JSON what it looks at"
                f" (width, height, {criteria.watermark}, {criteria.aesthetic})"
            )
    return folder


def save_tars(folder: Path, counts: np.ndarray, content: str, selection: str = "") -> None:
    with whole(folder / TARS) as path, open(path, "wb") as file:
        np.savez(file, counts=counts, content=content, selection=selection)


def scan(path: Path, contents: Contents) -> tuple[np.ndarray, str]:
    """The samples of one tar, `contents.dtype`, and a fingerprint of their names, sizes and texts."""
    rows: list[tuple] = []
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for name, files in _samples(path, file):
            places = [_choose(files, group) for group in contents.groups]
            if places[0][0] == NONE:
                continue
            about = f"{name} {sorted((ending, size) for ending, (_, size) in files.items())}\n"
            digest.update(about.encode(errors="backslashreplace"))  # a name may be no text
            texts = {ending: _read(file, *files[ending]) for ending in TEXTS if ending in files}
            for text in texts.values():
                digest.update(text)
            row: tuple = tuple(zip(*places, strict=True))
            if contents.select is not None:
                row += (_details(contents, places[0], texts, file),)
            rows.append(row)
    return np.array(rows, dtype=contents.dtype), digest.hexdigest()


def _choose(files: dict[str, tuple[int, int]], group: Group) -> tuple[int, int, int]:
    """(ending, offset in blocks, size) of a sample's file in a group: the first in the tar of those it prefers."""
    endings = [ending for equals in group for ending in equals]
    for equals in group:
        for ending, (offset, size) in files.items():
            if ending in equals and size < 2**32:
                return endings.index(ending), offset // BLOCK, size
    return NONE, 0, 0


def _details(contents: Contents, media: tuple[int, int, int], texts: dict[str, bytes], file: IO[bytes]) -> tuple:
    """DETAILS of a sample by its JSON, and a size that is not there by its picture."""
    assert contents.select
    try:
        details = contents.select.read(json_row(texts.get(".json", b"{}"), "its JSON"))
    except BrokenSample:  # whoever reads the sample will say so
        details = NOTHING
    number, block, size = media
    if not details[0] and [ending for equals in contents.groups[0] for ending in equals][number] in ENDINGS["images"]:
        details = (*size_of_bytes(_read(file, block * BLOCK, size)), *details[2:])
    return details


def _read(file: IO[bytes], offset: int, size: int) -> bytes:
    file.seek(offset)
    return file.read(size)


def _samples(path: Path, file: IO[bytes]) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """(name, {ending: (offset, size)}) of each sample. WebDataset's rule: files that follow one another and share the
    name up to the first dot are one.
    """
    key: str | None = None
    files: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                stem, dot, ending = os.path.basename(member.name).partition(".")
                name = os.path.join(os.path.dirname(member.name), stem)
                if name != key and files:
                    yield str(key), files
                    files = {}
                key = name
                files[(dot + ending).lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise SourceError(f"{path} is not an uncompressed tar, or is cut short: {error}") from error
    if files:
        yield str(key), files
