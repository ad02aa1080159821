"""Long work that any number of processes, on any number of machines, do together and once: its results are files.

Nobody is told who does what, and nobody waits in a collective. A process claims a task by creating a file beside its
result, and touches that while it is at work; a claim that nobody has touched for a while is taken over. Two processes
at one task waste time and do no harm: a result appears whole, under its name, or not at all. So the work goes on where
it was interrupted.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

STALE = 120.0  # seconds after which a claim that nobody touches is taken over
POLL = 0.2  # seconds
SILENT = 5.0  # seconds of waiting before that is told

log = logging.getLogger(__name__)


class Claims:
    """Who is at which task: a file beside its result."""

    def __init__(self) -> None:
        self.seen: dict[Path, tuple[int, float]] = {}  # when each was touched, and when that was first seen here

    def take(self, result: Path) -> bool:
        """Claim a task, unless another process is at it."""
        claim = _claim(result)
        claim.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            return True
        except FileExistsError:
            pass
        try:
            touched = claim.stat().st_mtime_ns
        except FileNotFoundError:  # given back just now
            return False
        before, since = self.seen.get(claim, (-1, 0.0))
        if touched != before:  # by this process's clock alone: those of two machines may differ
            self.seen[claim] = touched, time.monotonic()
            return False
        if time.monotonic() - since < STALE:
            return False
        touch(result)
        return True

    def give_back(self, result: Path) -> None:
        _claim(result).unlink(missing_ok=True)


def touch(result: Path) -> None:
    """Say that this process is still at a task."""
    _claim(result).touch()


def _claim(result: Path) -> Path:
    return result.with_name(f"{result.name}.claim")


def complete(results: Sequence[Path], work: Callable[[int], None], description: str, until: Path | None = None) -> None:
    """Return when every one of `results` is there, or the file `until`, for which they were made. `work(n)` writes the
    n-th, whole, and calls `touch` with it every few seconds; it is called for those that no other process is at.
    """
    claims, missing, waited, told = Claims(), list(range(len(results))), 0.0, False
    with tqdm(
        total=len(results),
        desc=description,
        unit="part",
        disable=len(results) < 2 or os.environ.get("RANK", "0") != "0",
        dynamic_ncols=True,
    ) as bar:
        while not (until and until.is_file()) and (missing := [n for n in missing if not results[n].is_file()]):
            bar.update(len(results) - len(missing) - bar.n)
            mine = next((n for n in missing if claims.take(results[n])), None)
            if mine is None:
                time.sleep(POLL)
                waited += POLL
                if waited > SILENT and not told:
                    told = True
                    log.info(
                        "waiting for %s, which another process is at; if that was killed, this one takes over after"
                        " %d s",
                        results[missing[0]],
                        STALE,
                    )
                continue
            try:
                if not results[mine].is_file():
                    work(mine)
            finally:
                claims.give_back(results[mine])
        bar.update(len(results) - bar.n)
