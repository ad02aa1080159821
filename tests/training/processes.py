"""Processes for tests: copies of this one, so that they start at once."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def fork(work: Callable[[], int | None]) -> int:
    """Run `work` in a process of its own, which ends with the status that it returns (None: 0), or 1 and a traceback where it raises. Returns its pid."""
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


def ended(child: int) -> int:
    """Its exit status; of one that was killed, minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
