"""Scores on disk: `scores.jsonl`, a JSON object a line, only ever appended to.

| key | what it holds |
| --- | --- |
| set | the model's or set's name |
| clip | the clip's file name, of ground truth the prompt's id; null for what is of the whole set |
| clip_hash | SHA-256 of the file; of what is of the whole set, of all its clips' |
| prompt_id, seed | null where the file's name does not tell, and for what is of the whole set |
| metric | the measure's name in `vc2.metrics.registry` |
| value | a finite number, or null where there is none |
| status | "ok", "skipped: reason" or "failed: reason" |
| implementation | library and version |
| weights | SHA-256 of the file that holds them, or null |
| preprocessing | one line |
| control | null for the set itself, "frozen", "shuffled" or "ground truth" |
| n | how many clips a corpus metric saw, or the least that a part of a composite has, else null |
| prompt | what the clip was scored against, null where it is not known, and for what is of the whole set |
| reference | of a distance: the folder's name, how many of its clips were seen, a digest of them; else null |

A metric that cannot be computed here (no library, no file) has one row of the whole set for each of its measures. Rows
are never taken back: `current` leaves out those that later ones have overtaken. What is asked for again and is there is
written again where it was overtaken.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from filelock import FileLock

from .writing import replace_text

JsonRow = dict[str, Any]
Key = tuple[str | None, ...]
OK = "ok"
GROUND_TRUTH = "ground truth"
CONTROLS = ("frozen", "shuffled", GROUND_TRUTH)


@dataclass(frozen=True)
class Score:
    """A line of `scores.jsonl`."""

    set: str
    clip: str | None
    clip_hash: str
    prompt_id: str | None
    seed: int | None
    metric: str
    value: float | None
    status: str
    implementation: str
    weights: str | None
    preprocessing: str
    control: str | None = None
    n: int | None = None
    prompt: str | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        if (self.value is not None) != (self.status == OK):
            raise ValueError(f"{self.metric} of {self.clip}: status {self.status!r} with value {self.value}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.metric} of {self.clip}: {self.value} is no number; such a clip has failed")

    @property
    def key(self) -> Key:
        """What tells rows apart; of several with one key the last one counts."""
        what = (self.set, self.clip, self.clip_hash, self.prompt_id, self.prompt, self.control, self.metric)
        return (*what, self.implementation, self.weights, self.preprocessing, self.reference)

    @property
    def place(self) -> Key:
        """Where it stands in a table, in which the newest counts."""
        return (self.set, self.clip, self.control, self.metric)


def read_scores(path: Path) -> list[Score]:
    """All scores in the order written, of several with one key the last. Raises ValueError for a file of others."""
    try:
        return list(by_key(Score(**row) for row in read(path)).values())
    except TypeError as error:
        raise ValueError(f"{path} holds other rows than scores ({error})") from error


def by_key(scores: Iterable[Score]) -> dict[Key, Score]:
    """Of several with one key the last, where it stands."""
    found: dict[Key, Score] = {}
    for score in scores:
        found.pop(score.key, None)
        found[score.key] = score
    return found


def digest(hashes: Iterable[str]) -> str:
    """SHA-256 of clips' hashes, whatever their order."""
    return hashlib.sha256(json.dumps(sorted(hashes)).encode()).hexdigest()


def of_clips(scores: Iterable[Score], hashes: Mapping[str, str]) -> list[Score]:
    """Those of clips that are now as `hashes` has them, by name, and of the set of all of them. A clip that was made
    anew has left its old scores behind, and the set those of other clips.
    """
    whole = digest(hashes.values())
    return [one for one in scores if one.clip_hash == (whole if one.clip is None else hashes.get(one.clip))]


def of_truth(scores: Iterable[Score], prompts: Container[str | None]) -> list[Score]:
    """Those of what the world itself shows, which is of no file, for prompts and for all together."""
    truth = (score for score in scores if score.control == GROUND_TRUTH)
    return [score for score in truth if score.clip is None or score.prompt_id in prompts]


def current(scores: Iterable[Score]) -> list[Score]:
    """What tables are made of: the newest score of each set, clip, control and measure. That a metric could not be
    computed counts only as long as it never could.
    """
    scores = list(scores)
    measured = {(score.set, score.control, score.metric) for score in scores if score.status == OK}
    newest = {
        score.place: score
        for score in scores
        if score.status == OK or score.clip is not None or (score.set, score.control, score.metric) not in measured
    }
    return list(newest.values())


def write_scores(path: Path, scores: Iterable[Score]) -> None:
    """These, in place of what is there. Raises OSError."""
    replace_text(path, _lines(map(asdict, scores)))


def append_scores(path: Path, scores: Iterable[Score]) -> None:
    append(path, *map(asdict, scores))


def read(path: Path) -> list[JsonRow]:
    """All whole lines of a file, [] where it is not there; one that was cut off when its writer was killed is left
    out.
    """
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in _whole(file)]


def _lines(rows: Iterable[JsonRow]) -> str:
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def _whole(lines: Iterable[str]) -> Iterator[str]:
    return (line for line in lines if line.endswith("\n"))


def append(path: Path, *rows: JsonRow) -> None:
    """Add rows, whole or not at all; other processes may add theirs. Raises OSError, and ValueError for a NaN."""
    lines = _lines(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"), open(path, "ab+") as file:
        file.truncate(_end_of_whole_lines(file))
        file.write(lines.encode())
        file.flush()
        os.fsync(file.fileno())


def _end_of_whole_lines(file: IO[bytes], block: int = 4096) -> int:
    """The position after the last newline; read from the end, since files grow long."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - block)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0
