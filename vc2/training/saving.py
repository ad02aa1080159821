"""Saving while a run goes on: a copy of its state in the host's memory, and a thread that writes it."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

import torch
from torch import Tensor

log = logging.getLogger(__name__)

UNDER_WAY: set[Future[object]] = set()  # what the writers of this process are at
LONGEST = 300.0  # seconds that a process which has failed waits for a checkpoint: a file system may have gone


def finish_writing() -> None:
    """Wait until nothing is under way, whatever comes of it: for a process that ends because another one failed."""
    wait(list(UNDER_WAY), LONGEST)


class HostCopies:
    """Copies of tensors that stay as they are while the run changes the tensors.

    They lie in buffers that every checkpoint uses again, page-locked where a GPU fills them: locking gigabytes takes
    longer than filling them. So the host holds one state of the run as long as the run lasts.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._buffers: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = defaultdict(list)
        self._used: Counter[tuple[torch.Size, torch.dtype]] = Counter()

    def begin(self) -> None:
        """A new state: the copies of the one before are no longer needed."""
        self._used.clear()

    def copy(self, tensor: Tensor) -> Tensor:
        """On a GPU it is complete only after `finish`."""
        kind = (tensor.shape, tensor.dtype)
        buffers, index = self._buffers[kind], self._used[kind]
        self._used[kind] += 1
        if index == len(buffers):
            buffers.append(torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self.device.type == "cuda"))
        return buffers[index].copy_(tensor.detach(), non_blocking=True)

    def finish(self) -> None:
        """Wait until the copies are complete."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class Writer:
    """Does one piece of writing after another in a thread. Leaving it as a context waits for what is under way, also
    where an error ends the run: what was saved shall not be lost with it.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[object] | None = None

    def write(self, work: Callable[[], object]) -> None:
        """Begin, as soon as what is under way is done. Raises what that raised."""
        self.wait()
        self._pending = self._thread.submit(work)
        UNDER_WAY.add(self._pending)
        self._pending.add_done_callback(UNDER_WAY.discard)

    @property
    def failed(self) -> bool:
        """Whether `wait` would raise, as far as is known now."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def wait(self) -> None:
        """Until nothing is under way. Raises what the writing raised, once."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if error is None:
            self.wait()
            return
        finish_writing()
        if self.failed:  # beside the error that ends the run
            assert self._pending is not None
            log.error("%s", self._pending.exception())
        elif UNDER_WAY:
            log.error("a checkpoint is still not written after %d seconds", LONGEST)
