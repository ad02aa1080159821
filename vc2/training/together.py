"""Processes that train together fail together: one that fails tells the others, which may be waiting for it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch.distributed as dist

from .saving import finish_writing
from .signals import end_soon, leave

log = logging.getLogger(__name__)

EVERY = 1.0  # seconds between looks
GRACE = 8.0  # seconds in which a process that was told may still end by itself


def listen() -> None:
    """From now on this process ends when another one of its run fails. Called when they have found one another."""
    if _many():
        threading.Thread(target=_listen, daemon=True).start()


@contextmanager
def failing_together() -> Iterator[None]:
    """What is raised within ends the other processes, too."""
    try:
        yield
    except BaseException as error:
        if _many():
            # From here on this process may hang: torch's destructors wait for threads of theirs, those for Python.
            end_soon()
            with suppress(RuntimeError):  # the store is gone, and with it the process that kept it
                message = f"process {dist.get_rank()} failed: {str(error) or type(error).__name__}"
                _store().compare_set(_word(), "", message)  # the first to fail is heard
        raise


def _many() -> bool:
    return dist.is_initialized() and dist.get_world_size() > 1


def _store() -> dist.TCPStore:
    """Through which the processes found one another: it answers also while a collective waits."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return dist.TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=GRACE))


def _word() -> str:
    # A launcher that starts all processes anew keeps the store.
    return f"vc2/failed/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}"


def _listen() -> None:
    # Where the store is gone, so is the process that kept it, and collectives with that fail by themselves.
    with suppress(RuntimeError):
        store = _store()
        while not store.check([_word()]):
            time.sleep(EVERY)
            if not _many():  # they have parted, and well
                return
        message = store.get(_word()).decode()
        time.sleep(GRACE)
        log.error("%s; this process waited for it and ends, too", message)
        finish_writing()
        leave(1)
