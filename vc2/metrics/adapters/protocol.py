"""The protocol of `vc2.metrics.external`, from the program's side, by the standard library alone."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any


def claim_output() -> IO[str]:
    """Standard output, for answers alone: what libraries print from here on goes to standard error."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return out


def serve(out: IO[str], about: Mapping[str, Any], values_of: Callable[[str, str], Mapping[str, float]]) -> None:
    """Say what this is, then answer each clip with `values_of(path, prompt)`, until the input ends. What that raises is
    told as that clip's error.
    """
    print(json.dumps(about), file=out, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer: dict[str, Any]
        try:
            answer = {"values": dict(values_of(asked["clip"], asked["prompt"]))}
        except Exception as error:  # noqa: BLE001 (one clip's, and told to who asked)
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=out, flush=True)


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal digits. Raises OSError."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
