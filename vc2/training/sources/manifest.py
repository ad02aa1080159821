"""A list of files with captions, in the formats that lists come in."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from ...files.output import whole
from .files import Listing, fingerprint, identity_of
from .lines import Lines
from .mapped import Mapped
from .once import complete, touch
from .record import Record, caption_of
from .rows import csv_row, json_row
from .select import DETAILS, Select, Selection, picture_size
from .source import CONTENT, BrokenSample, Source, SourceError

log = logging.getLogger(__name__)

OFTEN, FILES_OFTEN = 2**16, 2**12  # rows between two signs of life; and files, which are looked into
TRIED = 20  # rows to look for columns in, of JSON lines
CSV, JSONL, PARQUET = ".csv", ".jsonl", ".parquet"


class Manifest(Source):
    """A list of clips or images: a CSV with a header, JSON lines, or parquet, by its ending. `file` and `caption` are
    its columns for a file's path, below `root` (default: the list's own folder), and for its caption. `select` goes by
    columns too: `width`, `height`, and those for the scores. Where sizes are asked for, images without them are
    measured.
    """

    location = ("path", "root")
    kind: Literal["manifest"]
    path: Path
    root: Path | None = None
    file: str = "path"
    caption: str = "caption"
    select: Select | None = None

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> ManifestListing:
        return ManifestListing(self, medium, index_folder, sized)


class ManifestListing(Listing):
    def __init__(self, source: Manifest, medium: str, index_folder: Path, sized: bool):
        super().__init__(medium)
        self.source, self.root = source, source.root or source.path.parent
        if not self.root.is_dir():
            raise SourceError(f"{self.root}: no such folder (data.{medium}.root)")
        if not source.path.is_file():
            raise SourceError(f"{source.path}: no such file")
        self.table = table_of(source.path, index_folder)
        missing = [name for name in (source.file, source.caption) if name not in self.table.columns]
        if missing:
            raise SourceError(
                f"{source.path} has no column {', '.join(missing)}; expected those that data.{medium}.file and"
                f" data.{medium}.caption name, found {', '.join(self.table.columns)}"
            )
        select = source.select or (Select() if sized else None)
        measured = select is not None and medium == "images" and (sized or select.asks_size)
        self.details = None if select is None else self._details(select, index_folder, measured)
        self.rows = None if source.select is None else self._select(source.select)

    def _details(self, select: Select, index_folder: Path, measured: bool) -> Mapped:
        """DETAILS of all rows, kept below `index_folder`; `measured`: of images without a size in the list, too."""
        lines = self.table.lines
        files = [str(self.root), self.source.file] if measured else []
        key = fingerprint(lines.content, select.watermark, select.aesthetic, *files)
        path = index_folder / f"details-{self.source.path.stem}-{key}" / "details.bin"

        def details(index: int) -> tuple[float, ...]:
            row = self._row_or_nothing(index)
            width, height, *scores = select.read(row)
            if not width and measured:
                width, height = self._measure(row)
            return width, height, *scores

        def read(_: int) -> None:
            # A network file system answers many at once.
            with whole(path) as temporary, open(temporary, "wb") as file, ThreadPoolExecutor(16) as pool:
                often = FILES_OFTEN if measured else OFTEN
                for first in range(0, len(lines), often):
                    touch(path)
                    rows = range(first, min(first + often, len(lines)))
                    table = list((pool.map if measured else map)(details, rows))
                    file.write(np.array(table, DETAILS).tobytes())

        complete([path], read, f"reading {self.source.path}")
        return Mapped(path, DETAILS)

    def _measure(self, row: Mapping[str, object]) -> tuple[int, int]:
        """(width, height) of a row's picture, (0, 0) where there is none that can be read."""
        name = row.get(self.source.file)
        if not isinstance(name, str):
            return 0, 0
        try:
            with open(self.root / name, "rb") as file:
                return picture_size(file)
        except (OSError, ValueError):  # whoever reads the sample will say so
            return 0, 0

    def _row_or_nothing(self, index: int) -> Mapping[str, object]:
        try:
            return self.table.row(index)
        except BrokenSample:  # whoever reads the sample will say so
            return {}

    def _select(self, select: Select) -> np.ndarray:
        """The rows that are selected, 8 bytes each."""
        assert self.details
        selection = Selection(select)
        good = np.concatenate([selection(self.details[n : n + OFTEN]) for n in range(0, len(self.details), OFTEN)])
        log.info("%s: %s", self.source.path, selection)
        if not selection.selected:
            raise SourceError(
                f"{self.source.path}: {selection}; lower what `select` asks, or give the list what it looks at (width,"
                f" height, {select.watermark}, {select.aesthetic})"
            )
        return np.flatnonzero(good)

    def __len__(self) -> int:
        return len(self.table.lines) if self.rows is None else len(self.rows)

    def identity(self) -> str:
        return identity_of([self.source.path])

    def content(self) -> str:
        return f"{CONTENT}{self.table.lines.content}"

    def sizes(self) -> np.ndarray | None:
        if self.details is None:
            return None
        details = self.details[:] if self.rows is None else self.details[self.rows]
        return np.stack([details["width"], details["height"]], 1)

    def record(self, index: int) -> Record:
        number = index if self.rows is None else int(self.rows[index])
        name, row = f"{self.source.path} row {number + 1}", self.table.row(number)
        file = row.get(self.source.file)
        if not isinstance(file, str) or not file:
            raise BrokenSample(f"{name} has {file!r} for a path ({self.source.file})")
        path = self.root / file
        return Record(str(path), caption_of(row.get(self.source.caption), name), path, path.suffix.lower())


class Table:
    """Rows of a text file by name of their columns."""

    def __init__(self, lines: Lines, quoted: bool):
        self.lines, self.quoted = lines, quoted
        if quoted:
            self.columns = lines.header()
        else:
            self.columns = self._keys()

    def row(self, index: int) -> Mapping[str, object]:
        """Raises BrokenSample where it is none."""
        text, name = self.lines.record(index), f"{self.lines.path} row {index + 1}"
        return csv_row(text, self.columns, name) if self.quoted else json_row(text, name)

    def _keys(self) -> list[str]:
        """Of the first row that can be read. Raises BrokenSample where none of some is."""
        errors: list[BrokenSample] = []
        for index in range(min(len(self.lines), TRIED)):
            try:
                return list(self.row(index))
            except BrokenSample as error:
                errors.append(error)
        raise errors[0]


def table_of(path: Path, index_folder: Path) -> Table:
    """Raises SourceError for another format than by name, or a file that is none of its own."""
    ending = path.suffix.lower()
    if ending not in (CSV, JSONL, PARQUET):
        raise SourceError(f"{path}: a manifest is a {CSV}, a {JSONL} or a {PARQUET}, by its ending")
    if ending == PARQUET:
        path = _as_lines(path, index_folder)
    try:
        return Table(Lines(path, index_folder, quoted=ending == CSV, skip=int(ending == CSV)), ending == CSV)
    except BrokenSample as error:
        raise SourceError(f"{path} is not a {ending} file: {error}") from error


def _as_lines(path: Path, index_folder: Path) -> Path:
    """A parquet file as JSON lines, written once: of those a row can be read without its neighbours."""
    stat = path.stat()
    out = index_folder / f"{path.stem}-{fingerprint(path.name, stat.st_size, stat.st_mtime_ns)}{JSONL}"

    def write(_: int) -> None:
        try:
            from pyarrow import ArrowException
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            raise SourceError(f"{path}: parquet needs pyarrow ({error}); pip install pyarrow") from error
        try:
            with whole(out) as temporary, open(temporary, "w", encoding="utf-8") as file, ParquetFile(path) as parquet:
                for batch in parquet.iter_batches(OFTEN):
                    touch(out)
                    file.writelines(f"{json.dumps(row, default=str)}\n" for row in batch.to_pylist())
        except ArrowException as error:
            raise SourceError(f"{path} is not a parquet file: {error}") from error

    complete([out], write, f"reading {path}")
    return out
