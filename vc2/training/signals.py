"""Signals to a run: SIGINT, SIGTERM and SIGHUP ask it to save and stop, SIGUSR1 to save and go on."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

STOP, SAVE = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"), ("SIGUSR1",)
# Windows has no SIGHUP and no SIGUSR1, and the others no SIGBREAK.
ANSWERED = {number: name for name in STOP + SAVE if (number := getattr(signal, name, None))}


class Signals:
    """What this process has been asked for since it last did it."""

    def __init__(self) -> None:
        self.stop = self.save = False

    @contextmanager
    def answered(self) -> Iterator[None]:
        """Within it, signals are noted instead of ending the process."""
        before = {number: signal.signal(number, self._note) for number in ANSWERED}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        name = ANSWERED[signal.Signals(number)]
        if name in SAVE:
            self.save = True
        else:
            self.stop = True
        log.info("received %s: saving%s at the end of this step", name, "" if name in SAVE else " and stopping")


def ignore() -> None:
    """For processes that read data, to which launchers and terminals send the run's signals too: the run itself
    answers them, and stops its readers when it is done.
    """
    for number in ANSWERED:
        signal.signal(number, signal.SIG_IGN)
