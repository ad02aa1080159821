"""How the package's commands end."""

from __future__ import annotations

import sys
from collections.abc import Callable


def exit_status(
    work: Callable[[], int | None],
    *told: type[Exception],
    interrupted: str = "interrupted; the same command goes on",
) -> int:
    """What `work` returns, 0 for None; 130 for Ctrl-C, and 2 for what the user can put right: a ValueError, an OSError
    or one of `told`. A line on standard error says these two; what else is raised is a defect, and passes.
    """
    mine: tuple[type[Exception], ...] = (ValueError, OSError, *told)
    try:
        return work() or 0
    except KeyboardInterrupt:
        sys.stderr.write(f"{interrupted}\n")
        return 130
    except mine as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
