"""Where files are written: whether they can be, asked before the work that makes them, and whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

WINDOWS = os.name == "nt"


def check_target(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise OSError, in a plain sentence, unless a file can be written at `path`.

    Refused are a name that the system does not take, a folder of that name, a folder that cannot be made or written
    into, and, without `overwrite`, a file that exists. Nothing is made or changed.
    """
    path = Path(path)
    if WINDOWS and (odd := [name for name in path.parts if name != path.anchor and not _windows_takes(name)]):
        raise OSError(
            f'{path} cannot be written: Windows takes no name such as {odd[0]!r} (with one of <>:"|?*, a dot or space'
            " at its end, or a device's, such as NUL)"
        )
    if os.path.isdir(path):  # unlike Path's, answers for a name that is too long
        raise IsADirectoryError(f"{path} is a folder; name a file")
    if os.path.lexists(path) and not overwrite:
        raise already_there([path])
    folder = path.absolute().parent
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(f"{path} cannot be written: {folder} is not a folder")
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as scratch:
            (Path(scratch) / path.name).touch()
    except OSError as error:
        reason = f"{folder} takes no new file of that name ({error.strerror})"
        raise OSError(f"{path} cannot be written: {reason}") from error


def _windows_takes(name: str) -> bool:
    device = re.fullmatch(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)(\..*)?", name, re.IGNORECASE)
    return name == ".." or not (device or name[-1] in ". " or re.search(r'[<>:"|?*\x00-\x1f]', name))


def already_there(files: Sequence[Path]) -> FileExistsError:
    """The error for files that would be lost."""
    verb = "exists" if len(files) == 1 else "exist"
    return FileExistsError(f"{listed(files)} {verb} already; choose another name, or add --overwrite to replace")


def listed(files: Sequence[Path]) -> str:
    """The first three by name, and how many more: "a.mp4, b.mp4, c.mp4 and 13 more"."""
    return ", ".join(map(str, files[:3])) + (f" and {len(files) - 3} more" if len(files) > 3 else "")


def move(file: Path, target: Path) -> None:
    """Rename a finished file to `target` in one step, replacing what is there.

    Raises OSError, and leaves `target` as it was, where the system does not allow that: Windows for a file that is in
    use, such as a checkpoint whose weights are mapped.
    """
    try:
        file.replace(target)
    except PermissionError as error:
        raise OSError(
            f"{target} cannot be replaced ({error.strerror}): it is in use or read-only, and stays as it is; close what"
            " uses it, or choose another name"
        ) from error


@contextlib.contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path beside `path`, of the same ending, to write to; at the end it becomes `path`, in one step. Where something
    is raised nothing is left. Raises OSError as `move` does.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".writing-{socket.gethostname()}-{os.getpid()}-{path.name}")
    try:
        yield temporary
        move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, gone afterwards: what is finished in it can be moved to `path` in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        yield Path(folder)
