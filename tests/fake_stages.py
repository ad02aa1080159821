"""Stages for test_stages, in a module that a process of their own can import."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path


def counts(state: list) -> tuple[str, str]:
    state.append(1)
    return str(len(state)), ""


def fails(state: list) -> tuple[str, str]:
    raise ValueError("no such card")


def dies(state: list) -> tuple[str, str]:
    os._exit(7)


def hangs(pids: Path) -> tuple[str, str]:
    """With a process beside it in a session of its own, as ComfyUI's is."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    pids.write_text(f"{os.getpid()} {child.pid}")
    time.sleep(600)
    return "woken", ""


def shows(state: object) -> tuple[str, str]:
    return str(state), ""
