"""What reading a file may cost and do: seconds, memory, and nothing else."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS, CONSTANT = 5.0, 64 * 2**20  # of processor time; of memory, beside twice the file
# What no file may bring about. `pickle.find_class` is Python's own unpickler looking a class up.
FORBIDDEN = ("ctypes.", "os.", "pickle.find_class", "shutil.", "socket.", "subprocess.")
HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "os.getxattr")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_watching: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching is None:
        return
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITING:
        _watching.append(f"open {arguments[0]}")
    elif event.startswith(FORBIDDEN) and event not in HARMLESS:
        _watching.append(f"{event} {arguments}")


@dataclass
class Cost:
    seconds: float = 0.0
    memory: int = 0  # bytes resident, at the peak, beyond what there was before
    deeds: list[str] = field(default_factory=list)


@contextmanager
def measured() -> Iterator[Cost]:
    """What the block costs and does. It is stopped by TimeoutError after SECONDS of processor time, which it raises at
    its end where a reader took that for its file's fault.
    """
    global _watching
    if not getattr(sys, "_vc2_audited", False):
        sys.addaudithook(_audit)  # there for good, and silent outside
        sys._vc2_audited = True  # type: ignore[attr-defined]
    cost, before = Cost(), _resident("VmRSS", reset=True)
    with _alarm() as rung:
        start = time.process_time()
        _watching = cost.deeds
        try:
            yield cost
        finally:
            _watching = None
            cost.seconds = time.process_time() - start
            cost.memory = max(0, _resident("VmHWM") - before)
    if rung:
        raise rung[0]


@contextmanager
def _alarm() -> Iterator[list[TimeoutError]]:
    rung: list[TimeoutError] = []

    def stop(*_: object) -> None:
        rung.append(TimeoutError(f"still reading after {SECONDS} s of processor time"))
        raise rung[0]

    previous = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield rung
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, previous)


def _resident(field: str, reset: bool = False) -> int:
    """Bytes, from Linux' own account of this process; 0 elsewhere."""
    if not sys.platform.startswith("linux"):
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


def judge(path: Path, read: Callable[[Path], bool]) -> tuple[str, Cost]:
    """("loaded" or the refusal, what it cost) for a file; AssertionError for anything that is neither.

    `read` loads a file and tells whether what it found is what the file was made of.
    """
    content, beside = path.read_bytes(), sorted(path.parent.iterdir())
    with measured() as cost:
        try:
            verdict = "loaded" if read(path) else "WRONG"
        except ValueError as error:
            verdict = str(error)
            assert verdict.startswith(str(path.parent)), f"it names no file: {verdict}"
            assert verdict.isprintable(), f"it is not one line of plain text: {verdict!r}"
            assert len(verdict) < 1100, f"it has {len(verdict)} characters"
    assert verdict != "WRONG", "other values than the file was made of"
    assert cost.seconds < SECONDS, f"{cost.seconds:.1f} s"
    assert cost.memory <= 2 * len(content) + CONSTANT, f"{cost.memory} bytes of memory for {len(content)} of file"
    assert not cost.deeds, f"it did {cost.deeds}"
    assert path.read_bytes() == content
    assert sorted(path.parent.iterdir()) == beside
    return verdict, cost
