"""Runs that fail, each in processes of its own that end as a command's do: `python -m tests.training.failing RECIPE
FOLDER` starts them all at once and writes what each ended with to FOLDER/ends.json. One import of torch serves all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import open_clip  # noqa: F401 (here for all, and not in each, where it is needed)
import psutil
import torch
import torch.utils.tensorboard
from accelerate.tracking import TensorBoardTracker

import vc2.training.diffusion  # noqa: F401
from vc2.training import checkpoint, together
from vc2.training.data.stream import Stream
from vc2.training.loop import Trainer

HANGS = 300  # seconds after which a process counts as one that would never end


def at_step(step: int, work: Callable[[], None]) -> None:
    """Have a run do something else at a step, before that."""
    real = Trainer.train_step

    def train_step(trainer, batch):
        if trainer.step == step:
            work()
        return real(trainer, batch)

    Trainer.train_step = train_step


def fails() -> None:
    """Note when: what comes after it counts."""
    Path(os.environ["FAILED"]).touch()


def raises(error: Exception) -> Callable[[], None]:
    def work() -> None:
        fails()
        raise error

    return work


def out_of_memory() -> None:
    at_step(2, raises(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")))


def reader_raises() -> None:
    real = Stream.draw

    def draw(stream, step, slot):
        if step.index == 2:
            fails()
            raise MemoryError("no room for a clip")
        return real(stream, step, slot)

    Stream.draw = draw


def own_reading_raises() -> None:
    """In the process that trains: there is none that reads."""
    reader_raises()


def reader_killed() -> None:
    def kill() -> None:
        fails()
        for reader in multiprocessing.active_children():
            os.kill(reader.pid, signal.SIGKILL)

    at_step(1, kill)


def full_disk() -> None:
    """Files may grow to 64 KiB; Python is told, as by a full disk, in the middle of a write."""
    real = Trainer.save

    def save(trainer, **how):
        fails()
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        real(trainer, **how)

    Trainer.save = save


def tracker_fails() -> None:
    """And a thread of it goes on for ever."""

    def log(*args, **kwargs) -> None:
        fails()
        threading.Thread(target=time.sleep, args=(10_000,)).start()
        raise RuntimeError("the tracker's server is gone")

    TensorBoardTracker.log = log


def one_of_four() -> None:
    if os.environ["RANK"] == "2":
        at_step(2, raises(RuntimeError("a shape that nobody expected")))


def one_while_the_other_is_stuck() -> None:
    """Not in a collective that would notice."""
    if os.environ["RANK"] == "1":
        at_step(2, raises(RuntimeError("a driver's error")))
    else:
        at_step(2, lambda: time.sleep(10_000))


def one_out_of_memory() -> None:
    if os.environ["RANK"] == "1":
        out_of_memory()


def one_that_is_profiled() -> None:
    """While the other is stuck."""
    one_while_the_other_is_stuck()


def one_before_the_first_step() -> None:
    if os.environ["RANK"] == "1":
        Trainer._resume = lambda trainer: raises(PermissionError("checkpoints cannot be read"))()


def one_while_the_other_writes() -> None:
    """For longer than the other waits for it, and meanwhile stuck."""
    if os.environ["RANK"] == "1":
        at_step(2, raises(RuntimeError("a cable was pulled")))
        return
    real = checkpoint.save

    def save(*args):
        time.sleep(2 * together.GRACE)
        real(*args)

    checkpoint.save = save
    at_step(2, lambda: time.sleep(10_000))


CAUSES: dict[Callable[[], None], int] = {  # and how many processes
    out_of_memory: 1,
    reader_raises: 1,
    own_reading_raises: 1,
    reader_killed: 1,
    full_disk: 1,
    tracker_fails: 1,
    one_of_four: 4,
    one_while_the_other_is_stuck: 2,
    one_out_of_memory: 2,
    one_that_is_profiled: 2,
    one_before_the_first_step: 2,
    one_while_the_other_writes: 2,
}


def begin(cause: Callable[[], None], rank: int, port: int, recipe: str, folder: Path) -> int:
    """A process whose run fails; returns its pid."""
    if child := os.fork():
        return child
    os.setsid()
    log = os.open(folder / f"{cause.__name__}-{rank}.log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if CAUSES[cause] > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(CAUSES[cause])}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["FAILED"] = str(folder / f"{cause.__name__}.failed")
    cause()
    command = "profile" if cause is one_that_is_profiled else "run"
    overrides = [f"name={cause.__name__}", "batch=4", "log_every=2"]
    overrides.append(f"data.workers={int(cause is not own_reading_raises)}")
    sys.argv = ["vc2.training", command, recipe, "--runs", str(folder), *overrides]
    if cause is tracker_fails:
        sys.argv.append("trackers=[tensorboard]")
    if cause is one_that_is_profiled:
        sys.argv += ["--steps", "2"]
    runpy.run_module("vc2.training", run_name="__main__")
    raise AssertionError("a command ends with sys.exit")


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main() -> None:
    recipe, folder = sys.argv[1], Path(sys.argv[2])
    processes: dict[int, str] = {}
    for cause, world in CAUSES.items():
        port = free_port()
        for rank in range(world):
            processes[begin(cause, rank, port, recipe, folder)] = f"{cause.__name__}-{rank}"
    statuses: dict[str, int] = {}
    seconds: dict[str, float] = {}  # from the failure to the end of each
    deadline = time.monotonic() + HANGS
    while len(statuses) < len(processes) and time.monotonic() < deadline:
        time.sleep(0.1)
        for pid, name in processes.items():
            if name not in statuses and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                failed = folder / f"{name.rpartition('-')[0]}.failed"
                seconds[name] = time.time() - failed.stat().st_mtime if failed.exists() else 0.0
                statuses[name] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    time.sleep(1)
    left = [p.pid for p in psutil.process_iter() if p.pid != os.getpid() and session(p) in processes]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    messages = {name: (folder / f"{name}.log").read_text(errors="replace") for name in processes.values()}
    kept = [path.name for path in (folder / one_while_the_other_writes.__name__ / "checkpoints").iterdir()]
    ends = {"statuses": statuses, "messages": messages, "seconds": seconds, "left": len(left), "kept": kept}
    (folder / "ends.json").write_text(json.dumps(ends))


def session(process: psutil.Process) -> int:
    """-1 for one that has ended, also where nobody has asked for its status yet."""
    try:
        return -1 if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (OSError, psutil.Error):
        return -1


if __name__ == "__main__":
    main()
