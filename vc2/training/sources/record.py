"""A sample in a file, unread: what every list of files gives, and `media` decodes."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .source import BrokenSample

MAX_CAPTION = 10_000  # characters, of which the text encoder sees the first hundreds
# Longest first: UTF-32's mark begins with UTF-16's.
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Record:
    """A name for messages, a caption, and a file: a path, or the bytes in a tar as (path, offset, size)."""

    name: str
    caption: str
    file: Path | tuple[Path, int, int]
    ending: str

    def open(self) -> IO[bytes]:
        if isinstance(self.file, Path):
            return open(self.file, "rb")
        return io.BytesIO(read_range(*self.file))


def read_range(path: Path, offset: int, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(size)


@contextmanager
def blamed(name: str, failing: str = "cannot be read") -> Iterator[None]:
    """Whatever is raised within is a BrokenSample of that name: decoders raise anything, and one file must not end a
    run. Not so MemoryError, which is the machine's trouble.
    """
    try:
        yield
    except BrokenSample as error:
        raise BrokenSample(f"{name} {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise BrokenSample(f"{name} {failing}: {str(error) or type(error).__name__}") from error


def encoding_of(content: bytes) -> str:
    """What the byte order mark says that a text file begins with, or UTF-8."""
    return next((encoding for mark, encoding in MARKS.items() if content.startswith(mark)), "utf-8")


def text_of(content: bytes, name: str) -> str:
    """A text file's content: UTF-8, or what its byte order mark says. Raises BrokenSample for anything else, since
    every other encoding reads as every other, only wrong.
    """
    encoding = encoding_of(content)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise BrokenSample(
            f"{name} has a caption that is not {encoding.removesuffix('-sig').upper()} (byte {error.start}:"
            f" {error.reason}); save it as UTF-8"
        ) from error
    if "\0" in text:
        raise BrokenSample(f"{name} has a caption with zero bytes, perhaps UTF-16 without its mark; save it as UTF-8")
    return text


def caption_of(text: object, name: str) -> str:
    """The caption on one line. Raises BrokenSample where there is none: captions are left empty by
    `data.caption_dropout`, and not by chance.
    """
    if not isinstance(text, str) or not (caption := " ".join(text[:MAX_CAPTION].split())):
        raise BrokenSample(f"{name} has {repr(text)[:100]} for a caption")
    if any("\ud800" <= character <= "\udfff" for character in caption):
        raise BrokenSample(f"{name} has a caption with half a character (a lone surrogate) in it: {caption[:100]!r}")
    return caption
