"""Where the records of a text file begin: found out once, and kept in a file that all processes map."""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ...files.output import whole
from ...plural import plural
from .files import fingerprint
from .mapped import Mapped
from .once import complete, touch
from .record import encoding_of, read_range, text_of
from .source import SourceError

log = logging.getLogger(__name__)

OFTEN = 2**20  # lines between two signs of life
LONG = 50  # lines from which on a record was probably never meant to be one
LAYOUT = 1  # of the index of a CSV; what was indexed otherwise is indexed again
BUFFER = 2**16  # records whose places are written at a time
PLACE = np.dtype([("start", "<i8"), ("end", "<i8")])


class Lines:
    """Random access to the records of a text file in UTF-8: lines, or with `quoted` as many as a quoted field runs over
    (CSV). Empty lines are none. Only where each lies is kept, below `index_folder`, 16 bytes a record. Raises
    SourceError for a file that is not there, lists nothing, or has another encoding's mark.
    """

    def __init__(self, path: Path, index_folder: Path, quoted: bool = False, skip: int = 0):
        if not path.is_file():
            raise SourceError(f"{path}: no such file")
        encoding = encoding_of(read_range(path, 0, 4))
        if encoding in ("utf-16", "utf-32"):
            raise SourceError(f"{path} is text in {encoding.upper()}, expected UTF-8; save it as UTF-8")
        self.path = path
        self.places, self.content = line_index(path, quoted, index_folder)
        self.skip = skip
        if len(self.places) <= skip:
            raise SourceError(f"{path} lists nothing")

    def __len__(self) -> int:
        return len(self.places) - self.skip

    def header(self) -> list[str]:
        """The fields of the first record, of a CSV. Raises SourceError."""
        start, end = (int(v) for v in self.places[0])
        try:
            text = read_range(self.path, start, end - start).decode("utf-8-sig")
            if "\0" in text:
                raise SourceError(f"{self.path} begins with zero bytes, perhaps UTF-16; save it as UTF-8")
            return next(csv.reader(io.StringIO(text, newline="")))
        except (UnicodeDecodeError, csv.Error) as error:
            raise SourceError(f"{self.path} begins with no CSV header in UTF-8 ({error}); save it as such") from error

    def record(self, index: int) -> str:
        start, end = (int(v) for v in self.places[self.skip + index])
        # A byte order mark stands at most before the first.
        return text_of(read_range(self.path, start, end - start), f"{self.path} line {index + 1}")


def line_index(path: Path, quoted: bool, folder: Path) -> tuple[Mapped, str]:
    """(where each record lies, PLACE; a fingerprint of the content) of a text file, made where it is not there."""
    stat = path.stat()
    layout = [LAYOUT] if quoted else []
    key = fingerprint(path.name, stat.st_size, stat.st_mtime_ns, quoted, *layout)
    index = folder / f"lines-{path.stem}-{key}"
    places, content = index / "places.bin", index / "content.txt"

    def read(_: int) -> None:
        digest = hashlib.sha256()
        with whole(places) as temporary, open(temporary, "wb") as file:
            some: list[tuple[int, int]] = []
            for n, place in enumerate(_records(path, quoted, digest)):
                some.append(place)
                if len(some) == BUFFER:
                    file.write(np.array(some, PLACE).tobytes())
                    some.clear()
                if n % OFTEN == 0:
                    touch(places)
            file.write(np.array(some, PLACE).tobytes())
            with whole(content) as note:
                note.write_text(digest.hexdigest()[:16])

    complete([places], read, f"reading {path}")
    return Mapped(places, PLACE), content.read_text()


def _records(path: Path, quoted: bool, digest) -> Iterator[tuple[int, int]]:
    position, start, first = 0, -1, 0  # start, and the number of its line: of the record that is being read; or -1
    inside = odd = others = False
    long: list[int] = []
    with open(path, "rb") as file:
        for number, line in enumerate(chain(file, [b""]), 1):  # the last for the file's end, which ends any record
            digest.update(line)
            text = line if position else line.removeprefix(codecs.BOM_UTF8)
            if start < 0 and text.strip():
                start, first = position, number
            if quoted and b'"' in text:
                inside = open_after(text, inside)
                odd ^= text.count(b'"') % 2 == 1
                others |= odd != inside
            position += len(line)
            if start >= 0 and not (inside and line):
                yield start, position
                start = -1
                if number - first >= LONG:
                    long.append(first)
    if others:
        # Once every mark opened or closed a field, wherever it stood: this is another list than was read then.
        digest.update(b"marks within fields")
    if long:
        log.warning(
            "%s: %s of %d lines or more, beginning in line %s; is a field's quotation mark missing?",
            path,
            plural(len(long), "row"),
            LONG,
            ", ".join(map(str, long[:5])) + (", ..." if len(long) > 5 else ""),
        )


def open_after(line: bytes, inside: bool) -> bool:
    """Whether a quoted field of a CSV is open at the end of a line; `inside`: whether one is at its start.

    A field is quoted if it begins with a quotation mark; any other mark in it is text, as for Python's `csv`. Within
    such a field two marks are one of its text, and a single one ends it.
    """
    at = 0
    if not inside and line.startswith(b'"'):
        inside, at = True, 1
    while True:
        if not inside:
            at = line.find(b',"', at) + 2
            if at == 1:
                return False
        at = line.find(b'"', at) + 1
        if not at:
            return True
        inside = line.startswith(b'"', at)
        at += inside
