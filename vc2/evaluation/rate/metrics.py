"""Do metrics agree with people? From votes, and from the scores of the very clips that were voted on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from ..report.measures import known
from ..rows import OK, Score, by_key, read_scores, write_scores
from ..sets import SCORES
from .session import Pair, Session
from .votes import Vote

ROWS = "rows.jsonl"  # beside the votes, so that the tables follow from one folder
CORRELATED = 10  # pairs that a rank correlation takes, or more
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreed:
    """A measure against the votes on a question.

    `pairs`: those that were voted on and whose clips both have the measure; `decided`: those of them in which one clip
    has more votes than the other, and than "comparable". `share` of these the measure prefers as people do, a pair that
    it finds equal counting half (None where nothing is decided, or the measure has no better side). `correlation`:
    Spearman's, of the measure's difference and the votes' balance, positive where more of what is better (of a measure
    without a better side: of a higher value) goes with being preferred; None for few pairs, or where all are equal.
    """

    question: str
    measure: str
    better: str
    pairs: int
    decided: int
    share: float | None
    interval: tuple[float, float] | None
    correlation: float | None
    correlation_interval: tuple[float, float] | None


def keep_scores(session: Session, folder: Path, files: Sequence[Path] = ()) -> None:
    """Write what the sets' own rows, and `files`, say of the session's clips to `folder`, beside what is there: the
    sets may be gone later. Raises ValueError for files of other rows, OSError.
    """
    hashes = {entry.hash for pair in session.pairs for entry in (pair.first, pair.second)}
    sources = [folder / ROWS, *(Path(one, SCORES) for one in session.folders), *files]
    scores = by_key(
        score
        for path in sources
        for score in read_scores(path)
        if score.clip_hash in hashes and score.clip is not None and score.control is None and score.status == OK
    )
    if scores:
        write_scores(folder / ROWS, scores.values())


def against_votes(session: Session, votes: Sequence[Vote], scores: Iterable[Score]) -> list[Agreed]:
    """Of every question and measure."""
    values: dict[str, dict[str, float]] = {}  # by measure and clip
    for score in scores:
        if score.value is not None:
            values.setdefault(score.metric, {})[score.clip_hash] = score.value
    out = []
    for question in session.questions:
        cast: dict[str, list[Vote]] = {}
        for vote in votes:
            if vote.question == question:
                cast.setdefault(vote.pair, []).append(vote)
        for measure, of_clips in values.items():
            pairs = [
                pair
                for pair in session.pairs
                if pair.id in cast and pair.first.hash in of_clips and pair.second.hash in of_clips
            ]
            if pairs:
                out.append(_agreed(question, measure, pairs, cast, of_clips))
    return out


def _agreed(
    question: str, measure: str, pairs: list[Pair], cast: dict[str, list[Vote]], values: dict[str, float]
) -> Agreed:
    about = known(measure)
    better = about.better if about else "neither"
    sign = -1.0 if better == "lower" else 1.0
    # Positive: for the first set's clip.
    apart = np.array([sign * (values[pair.first.hash] - values[pair.second.hash]) for pair in pairs])
    tallies = [Counter(vote.winner for vote in cast[pair.id]) for pair in pairs]
    balance = np.array([(t[p.first.set] - t[p.second.set]) / t.total() for t, p in zip(tallies, pairs, strict=True)])
    majority = np.array([_majority(t, pair) for t, pair in zip(tallies, pairs, strict=True)])
    prompts = np.array([pair.prompt_id for pair in pairs])
    decided, share, interval = majority != 0, None, None
    if better != "neither" and decided.any():
        share = float(np.mean(0.5 + 0.5 * np.sign(apart[decided]) * majority[decided]))
        interval = wilson(share, len(set(prompts[decided])))
    correlation, its_interval = _correlation(apart, balance, prompts)
    return Agreed(question, measure, better, len(pairs), int(decided.sum()), share, interval, correlation, its_interval)


def _majority(tally: Counter[str | None], pair: Pair) -> int:
    """1 for the first clip, -1 for the second, 0 where neither has more votes than everything else."""
    first, second, equal = tally[pair.first.set], tally[pair.second.set], tally[None]
    return int(first > max(second, equal)) - int(second > max(first, equal))


def wilson(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of `count` independent observations (Wilson, 1927), also where the share is no
    multiple of 1 / count: pairs on one prompt are alike, so that prompts are counted and not pairs.
    """
    z = float(stats.norm.ppf(0.975))
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - reach), min(1.0, middle + reach)


def _correlation(
    apart: np.ndarray, balance: np.ndarray, prompts: np.ndarray
) -> tuple[float | None, tuple[float, float] | None]:
    """Spearman's and its 95 % interval over prompts, which are drawn with all their pairs. Which set is the first is
    arbitrary, so that every pair counts from both sides.
    """
    if len(apart) < CORRELATED or not apart.any() or not balance.any():
        return None, None
    x, y = (stats.rankdata([*one, *-one])[: len(one)] - len(one) - 0.5 for one in (apart, balance))
    products = np.stack([x * y, x * x, y * y])
    groups = np.stack([products[:, prompts == prompt].sum(1) for prompt in np.unique(prompts)])
    whole = groups.sum(0)
    value = float(whole[0] / math.sqrt(whole[1] * whole[2]))
    if len(groups) < 2:
        return value, None
    times = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES)
    xy, xx, yy = (times @ groups).T
    there = (xx > 0) & (yy > 0)
    low, high = np.percentile(xy[there] / np.sqrt(xx[there] * yy[there]), [2.5, 97.5])
    return value, (float(low), float(high))
