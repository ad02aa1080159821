"""A folder of clips or images."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

import numpy as np

from ...plural import plural
from .files import ENDINGS, Listing, content_of, identity_of
from .record import Record, caption_of, text_of
from .select import DETAILS, NOTHING, Selection, SelectSize, picture_size
from .source import Source, SourceError

log = logging.getLogger(__name__)


class Folder(Source):
    """Clips or images in a folder (and the folders in it), each with its caption in a `.txt` of the same name. `select`
    is for images.
    """

    location = ("path",)
    kind: Literal["folder"]
    path: Path
    select: SelectSize | None = None

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> FolderListing:
        return FolderListing(self.path, medium, self.select, sized)


class FolderListing(Listing):
    def __init__(self, folder: Path, medium: str, select: SelectSize | None = None, sized: bool = False):
        super().__init__(medium)
        endings = ENDINGS[medium]
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
        files = sorted(path for path in _files(folder) if path.suffix.lower() in endings)
        self.folder, self.files = folder, [path for path in files if path.with_suffix(".txt").is_file()]
        if not self.files:
            raise SourceError(
                f"{folder} holds {plural(len(files), 'file')} ending in {', '.join(endings)}, none with a caption"
                f" beside it; expected e.g. cat{endings[0]} and cat.txt"
            )
        if bare := [str(path) for path in files if not path.with_suffix(".txt").is_file()]:
            log.warning(
                "%s: %d of %s left out, for want of a .txt with a caption beside it: %s",
                folder,
                len(bare),
                plural(len(files), "file"),
                ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else ""),
            )
        self.details = self._details() if medium == "images" and (sized or select) else None
        if select:
            self._select(select)

    def _details(self) -> np.ndarray:
        def size(path: Path) -> tuple[int, int]:
            with open(path, "rb") as file:
                return picture_size(file)

        return np.array([(*size(path), *NOTHING[2:]) for path in self.files], DETAILS)

    def _select(self, select: SelectSize) -> None:
        if self.details is None:
            raise SourceError(f"{self.folder}: select goes by the size of images; leave it out for data.clips")
        selection = Selection(select)
        good = selection(self.details)
        log.info("%s: %s", self.folder, selection)
        self.files = [path for path, selected in zip(self.files, good, strict=True) if selected]
        self.details = self.details[good]
        if not self.files:
            raise SourceError(f"{self.folder}: {selection}; lower what `select` asks")

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> str:
        return identity_of(path for file in self.files for path in (file, file.with_suffix(".txt")))

    def content(self) -> str:
        return content_of(self.folder, self.files, [file.with_suffix(".txt") for file in self.files])

    def sizes(self) -> np.ndarray | None:
        return None if self.details is None else np.stack([self.details["width"], self.details["height"]], 1)

    def record(self, index: int) -> Record:
        path = self.files[index]
        caption = text_of(path.with_suffix(".txt").read_bytes(), str(path))
        return Record(str(path), caption_of(caption, str(path)), path, path.suffix.lower())


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it, also by links, each folder once. Folders that cannot be looked into are
    named, and left out.
    """
    closed: list[OSError] = []
    files: list[Path] = []
    seen: set[str] = set()
    for parent, below, names in os.walk(folder, onerror=closed.append, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:  # by another link, or by one to a folder above, which has no end
            below.clear()
            continue
        seen.add(real)
        below.sort()
        files += [Path(parent, name) for name in names]
    if closed:
        named = ", ".join(f"{error.filename} ({error.strerror})" for error in closed[:5])
        log.warning("%s: %s left out, which cannot be read: %s", folder, plural(len(closed), "folder"), named)
    return files
