"""Stages of a bench, one after the other in a process of their own, and each with an end that it cannot miss: a stage
that is late is killed, with whatever it started, and the next one gets a new process.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable, Generator, Mapping
from multiprocessing.connection import Connection
from typing import Any

import psutil

from bench.tables import NOT_MEASURED

Found = tuple[str, str]  # what, and a note
Stage = Callable[[Any], Found]
PATIENCE = 3  # how many times what it needs a stage may take: machines differ
ENDS_WITHIN = 5  # seconds


def stages(todo: Mapping[str, tuple[float, Stage]], state: object, end: float) -> Generator[dict[str, str], None, None]:
    """What was found, stage by stage, all of it before `end` (of time.monotonic). `todo` has what each needs, about, in
    seconds; `state` is given to every one, and keeps what one leaves in it for the next. One that fails, or is late,
    says so and leaves the others theirs.
    """
    worker: Worker | None = None
    try:
        for what, (need, stage) in todo.items():
            left = end - time.monotonic()
            if left < need:
                note = f"{max(0.0, left):.0f} s were left, and it needs about {need:.0f}"
                yield {"what": what, "found": NOT_MEASURED, "note": note}
                continue
            if worker is None or worker.ended:
                worker = Worker(state)
            found, note = worker.do(stage, PATIENCE * need, end)
            yield {"what": what, "found": found, "note": note}
    finally:
        if worker is not None:
            worker.end()


class Worker:
    """A process that does stages, until one is late."""

    def __init__(self, state: object):
        spawn = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._pipe, its = spawn.Pipe()
        self._process = spawn.Process(target=_work, args=(its, state))
        self._process.start()
        its.close()  # ours of it, or its end would not be heard of
        self._idle = self.ended = False

    def do(self, stage: Stage, most: float, end: float) -> Found:
        """What the stage finds, in `most` seconds and before `end`; else why nothing."""
        begun = time.monotonic()
        try:
            if not self._idle:  # imports take their time, which is not the stage's
                self._answer(end)
                begun = time.monotonic()
            self._idle = False
            self._pipe.send(stage)
            found = self._answer(min(begun + most, end))
            self._idle = True
            return found
        except TimeoutError:
            found = NOT_MEASURED, f"stopped after {time.monotonic() - begun:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join(ENDS_WITHIN)
            found = NOT_MEASURED, f"its process ended with status {self._process.exitcode}"
        self.end()
        return found

    def _answer(self, end: float) -> Any:
        if not self._pipe.poll(max(0.0, end - time.monotonic())):
            raise TimeoutError
        return self._pipe.recv()

    def end(self) -> None:
        """Let the process end if it is idle, else kill it and all that it started. Harmless when it has ended."""
        self.ended = True
        self._pipe.close()
        if self._idle:
            self._process.join(ENDS_WITHIN)
        started = []
        with contextlib.suppress(psutil.NoSuchProcess):
            started = psutil.Process(self._process.pid).children(recursive=True)
        self._process.kill()
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.join(ENDS_WITHIN)


def _work(pipe: Connection, state: object) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C whoever waits for the answers hears, and ends this process
    with contextlib.suppress(EOFError):  # nobody waits any more
        pipe.send(None)
        while True:
            stage = pipe.recv()
            try:
                found = stage(state)
            except Exception as error:  # noqa: BLE001 (whatever it is, the next stage is another matter)
                found = NOT_MEASURED, f"{type(error).__name__}: {str(error)[:200]}"
            pipe.send(found)
