"""Processes for tests: copies of this one, so that they start at once."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import IO

import torch

# Torch starts autograd's threads in a process' first backward pass, one for each GPU that it knows of, and what is
# forked from a process that has them cannot learn. A test that compiles makes it know of one even where there is none:
# so the first backward pass is here, before any test.
torch.ones((), requires_grad=True).backward()


def fork(work: Callable[[], int | None]) -> int:
    """Run `work` in a process of its own, which ends with the status that it returns (None: 0), or 1 and a traceback
    where it raises. Returns its pid.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        code = work() or 0
    finally:  # nothing of the test that forked may go on here
        if sys.exc_info()[0]:
            traceback.print_exc()
        os._exit(code)


def all_ended(children: list[int]) -> list[int]:
    """Their exit statuses. One that fails ends the others, which might wait for it."""
    codes: dict[int, int] = {}
    while len(codes) < len(children):
        for child in children:
            if child not in codes and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                codes[child] = ended(child)
                if codes[child]:
                    for other in children:
                        if other not in codes:
                            os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    return [codes[child] for child in children]


def ended(child: int) -> int:
    """Its exit status; of one that was killed, minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def until_step(step: int, stderr: IO[str]) -> str:
    """Read a run's progress bar, which leaves out steps that are quick, until it has done so many; returns what was
    read.
    """
    messages = ""
    for line in stderr:
        messages += line
        if (done := re.search(r" (\d+)/\d+ \[", line)) and int(done[1]) >= step:
            break
    return messages
