"""Suites: the prompts that models are compared on.

A suite is a JSON-lines file, a line `{"id": ..., "prompt": ...}`; `miniature` comes with the package. Others' prompts
are read from the user's own copy: a `.txt` is EvalCrafter's list (or any, a prompt a line), a `.json` MSR-VTT's
`test_videodatainfo.json`, a `.csv` the list of its captions.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...metrics.metric import file_hash
from . import msrvtt

OWN = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.jsonl"))}


@dataclass(frozen=True)
class Prompt:
    """`scene`: what the miniature's world shows for it, by name (colour, shape, direction); None elsewhere."""

    id: str
    prompt: str
    scene: dict[str, str] | None = None


@dataclass(frozen=True)
class Suite:
    """`name` is that of one of ours, else the file's path; `hash` the SHA-256 of the file."""

    name: str
    hash: str
    prompts: tuple[Prompt, ...]

    def __getitem__(self, prompt_id: str) -> Prompt:
        return next(prompt for prompt in self.prompts if prompt.id == prompt_id)

    def first(self, count: int | None) -> Suite:
        return Suite(self.name, self.hash, self.prompts[:count])


def load(name: str) -> Suite:
    """A suite of ours, or a user's file. Raises ValueError for what is none."""
    path = OWN.get(name, Path(name))
    if not path.is_file():
        raise ValueError(f"{name}: no such suite; name a file, or one of ours ({', '.join(OWN)})")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ValueError(
            f"{path}: a suite is one of {', '.join(READERS)}, not {path.suffix or 'a file without ending'}"
        )
    try:
        # A line of a user's file may have more keys than are read, and a "scene" that is no scene of our world.
        prompts = tuple(prompt if name in OWN else replace(prompt, scene=None) for prompt in reader(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} cannot be read as a suite: {error!r}") from error
    if not prompts:
        raise ValueError(f"{path}: no prompts in it")
    for prompt in prompts:
        if not re.fullmatch(r"[\w.-]+", prompt.id):
            raise ValueError(f"{path}: {prompt.id!r} cannot name a file; an id is of letters, digits, _, - and .")
    twice = [name for name, times in Counter(prompt.id for prompt in prompts).items() if times > 1]
    if twice:
        raise ValueError(f"{path}: more than one prompt has the id {twice[0]!r}")
    known = {prompt.id for prompt in prompts}
    if unclear := [name for name in known if (match := re.fullmatch(r"(.+)-\d+", name)) and match[1] in known]:
        raise ValueError(f"{path}: the id {unclear[0]!r} is another's with a seed; name them apart")
    return Suite(name, file_hash(path), prompts)


def _lines(path: Path) -> Iterator[Prompt]:
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("id", "prompt")):
                raise ValueError(f'line {number} must be {{"id": "...", "prompt": "..."}}, found {line[:80]}')
            yield Prompt(row["id"], row["prompt"], row.get("scene"))


def _plain(path: Path) -> Iterator[Prompt]:
    """Numbered from 0000, as EvalCrafter numbers its clips."""
    lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return (Prompt(f"{number:04d}", line) for number, line in enumerate(lines))


def _captions(read: Callable[[Path], Iterator[tuple[str, str]]]) -> Callable[[Path], Iterator[Prompt]]:
    return lambda path: (Prompt(*row) for row in read(path))


READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _lines,
    ".txt": _plain,
    ".json": _captions(msrvtt.captions),
    ".csv": _captions(msrvtt.table),
}
