"""Processes that read data ahead. They end with what they read for, however that ends."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Generator
from functools import partial
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from torch.utils.data import DataLoader, Dataset

from .. import signals


def read_ahead(dataset: Dataset, workers: int, **options: Any) -> Generator[Any, None, None]:
    """What a DataLoader with these `options` yields, read by `workers` processes (0: by this one). Who does not read to
    the end closes it; else the readers, which no signal ends, would keep this process from ending too.
    """
    receiver, sender = multiprocessing.Pipe(duplex=False)
    with receiver, sender:
        yield from DataLoader(dataset, num_workers=workers, worker_init_fn=partial(_begin, receiver, sender), **options)


def _begin(receiver: Connection, sender: Connection, worker: int) -> None:
    signals.ignore()
    sender.close()  # or the pipe would never be at its end
    Thread(target=_end, args=(receiver,), daemon=True).start()


def _end(receiver: Connection) -> None:
    """Nothing is ever sent: the pipe ends when the run closes it, or is gone."""
    receiver.poll(None)
    os._exit(0)  # in the middle of a file, if need be
