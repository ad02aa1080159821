"""How a run is ended. SIGINT, SIGTERM and SIGHUP ask it to save and stop, SIGUSR1 to save and go on."""

from __future__ import annotations

import faulthandler
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

log = logging.getLogger(__name__)

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
ANSWERED = [number for name in NAMES if (number := getattr(signal, name, None))]  # Windows has only the first two

TO_END = 20  # seconds


class Signals:
    """What this process has been asked for since it last did it."""

    def __init__(self) -> None:
        self.stop = self.save = False

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Within it, signals are noted instead of ending the process; those that it was started to ignore, as `nohup`
        and background jobs of scripts do, it goes on to ignore.
        """
        ours = [number for number in ANSWERED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in ours}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        name = signal.Signals(number).name
        if name == "SIGUSR1":
            self.save = True
        else:
            self.stop = True
        log.info("received %s: saving%s at the end of this step", name, "" if name == "SIGUSR1" else " and stopping")


def ignore() -> None:
    """For processes that read data, to which launchers and terminals send the run's signals too: the run itself
    answers them, and stops its readers when it is done.
    """
    for number in ANSWERED:
        signal.signal(number, signal.SIG_IGN)


def end_soon() -> None:
    """This process has failed, and ends even if something hangs while it tidies up (a tracker, a driver, a lock): it
    shows where, then.
    """
    faulthandler.dump_traceback_later(TO_END, exit=True)


def leave(status: int) -> NoReturn:
    """End this process now that its messages are out, and its readers with it.

    It does not end as Python would: threads of torch's or of a tracker's may still run, and taking them down can hang,
    or abort with a status that is not ours.
    """
    for child in multiprocessing.active_children():
        child.kill()  # readers ignore gentler signals
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
