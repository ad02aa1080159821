"""The protocol of `vc2.metrics.external`, from the program's side, by the standard library alone.

This folder holds programs, not modules of `vc2`: each is run by its path, by a Python that has what it needs and that
need not have this distribution, and finds this file beside it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

About = Mapping[str, Any]
ValuesOf = Callable[[str, str], Mapping[str, float]]


def serve(start: Callable[[], tuple[About, ValuesOf]]) -> None:
    """Say what this is, then answer each clip with values of its path and prompt, until the input ends; both are what
    `start` returns. A missing file or library and an unusable argument, which it raises, end the program with a line;
    what the values raise is told as that clip's error. What libraries print goes to standard error.
    """
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    try:
        about, values_of = start()
    except (OSError, ImportError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    out.write(json.dumps(about) + "\n")
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"values": dict(values_of(asked["clip"], asked["prompt"]))}
        except Exception as error:  # noqa: BLE001 (one clip's, and told to who asked)
            answer = {"error": f"{type(error).__name__}: {error}"}
        out.write(json.dumps(answer) + "\n")
