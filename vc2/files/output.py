"""Where files are written: whether they can be, asked before the work that makes them, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path


def check_target(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise OSError, in a plain sentence, unless a file can be written at `path`.

    Refused are a folder of that name, a folder that cannot be made or written into, and, without `overwrite`, a file
    that exists. Nothing is made or changed.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not overwrite:
        raise already_there([path])
    folder = path.absolute().parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {folder} takes no new file ({error.strerror})") from error


def already_there(files: Sequence[Path]) -> FileExistsError:
    """The error for files that would be lost."""
    verb = "exists" if len(files) == 1 else "exist"
    return FileExistsError(f"{listed(files)} {verb} already; choose another name, or add --overwrite to replace")


def listed(files: Sequence[Path]) -> str:
    """The first three by name, and how many more: "a.mp4, b.mp4, c.mp4 and 13 more"."""
    return ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone afterwards: what is finished in it can be moved to `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        yield Path(folder)
