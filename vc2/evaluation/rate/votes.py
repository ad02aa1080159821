"""Votes on disk: `votes.jsonl`, a line a vote or a vote taken back, only ever appended to."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import rows

VOTES = "votes.jsonl"
LEFT, RIGHT, TIE = "left", "right", "comparable"
CHOICES = (LEFT, RIGHT, TIE)


@dataclass(frozen=True)
class Vote:
    """`winner` is the set that was preferred, None for "comparable"; `seconds`: how long the clips were looked at;
    `at`: when, UTC.
    """

    id: int
    rater: str
    question: str
    pair: str
    prompt_id: str
    left: str
    right: str
    choice: str
    winner: str | None
    seconds: float
    at: str


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def read(path: Path) -> list[Vote]:
    """Votes that were not taken back. Raises ValueError for a file of other rows."""
    votes: dict[int, Vote] = {}
    for row in rows.read(path):
        try:
            if "undo" in row:
                del votes[row["undo"]]
            else:
                votes[row["id"]] = Vote(**row)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path} is not what `rate` writes ({error!r} in {row})") from error
    return list(votes.values())


def add(path: Path, vote: Vote) -> None:
    """Raises OSError."""
    rows.append(path, asdict(vote))


def take_back(path: Path, vote: Vote) -> None:
    """Raises OSError."""
    rows.append(path, {"undo": vote.id, "rater": vote.rater, "at": now()})


def next_id(path: Path) -> int:
    return 1 + max((row["id"] for row in rows.read(path) if "id" in row), default=0)


def of(votes: Sequence[Vote], rater: str) -> list[Vote]:
    return [vote for vote in votes if vote.rater == rater]
