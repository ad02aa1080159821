"""A folder of clips or images."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Literal

from .files import ENDINGS, Listing, identity_of
from .record import Record, caption_of, text_of
from .source import Source, SourceError

log = logging.getLogger(__name__)


class Folder(Source):
    """Clips or images in a folder (and the folders in it), each with its caption in a `.txt` of the same name."""

    kind: Literal["folder"]
    path: Path

    def open(self, medium: str, index_folder: Path) -> FolderListing:
        return FolderListing(self.path, medium)


class FolderListing(Listing):
    def __init__(self, folder: Path, medium: str):
        super().__init__(medium)
        endings = ENDINGS[medium]
        if not folder.is_dir():
            raise SourceError(f"{folder}: no such folder")
        files = sorted(path for path in _files(folder) if path.suffix.lower() in endings)
        self.files = [path for path in files if path.with_suffix(".txt").is_file()]
        if not self.files:
            raise SourceError(
                f"{folder} holds {len(files)} files ending in {', '.join(endings)}, none with a caption beside it;"
                f" expected e.g. cat{endings[0]} and cat.txt"
            )
        if bare := [str(path) for path in files if not path.with_suffix(".txt").is_file()]:
            log.warning(
                "%s: %d of %d files have no .txt with a caption beside them and are left out: %s",
                folder,
                len(bare),
                len(files),
                ", ".join(bare[:5]) + (", ..." if len(bare) > 5 else ""),
            )

    def __len__(self) -> int:
        return len(self.files)

    def identity(self) -> str:
        return identity_of(path for file in self.files for path in (file, file.with_suffix(".txt")))

    def record(self, index: int) -> Record:
        path = self.files[index]
        caption = text_of(path.with_suffix(".txt").read_bytes(), str(path))
        return Record(str(path), caption_of(caption, str(path)), path, path.suffix.lower())


def _files(folder: Path) -> list[Path]:
    """All files in a folder and those below it. Folders that cannot be looked into are named, and left out."""
    closed: list[OSError] = []
    files = [Path(parent, name) for parent, _, names in os.walk(folder, onerror=closed.append) for name in names]
    if closed:
        names = ", ".join(f"{error.filename} ({error.strerror})" for error in closed[:5])
        log.warning("%s: %d folders cannot be read and are left out: %s", folder, len(closed), names)
    return files
