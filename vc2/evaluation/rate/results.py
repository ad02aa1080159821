"""Tables of votes: `results.md` and `results.json`, made from `session.json`, `votes.jsonl` and `rows.jsonl` alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import evalica
import jinja2
import numpy as np
import pandas as pd
from scipy.sparse.csgraph import connected_components

from ..report.render import markdown_cell
from ..rows import read_scores
from ..writing import replace_text, rounded
from . import votes as store
from .metrics import ROWS, against_votes, wilson
from .session import QUESTIONS, Session
from .votes import LEFT, TIE, VOTES, Vote

RESULTS, NUMBERS = "results.md", "results.json"
RESAMPLES = 1000


@dataclass(frozen=True)
class Share:
    """Of votes, with the 95 % interval of Wilson."""

    votes: int
    of: int
    low: float
    high: float

    @classmethod
    def count(cls, votes: int, of: int) -> Share:
        return cls(votes, of, *wilson(votes / of, of))


@dataclass(frozen=True)
class Versus:
    """A question about two sets. `preference`: votes for the first, a tie counting half, and its interval for which
    prompts are drawn anew, not votes (None for one prompt): votes on one pair of clips are alike.
    """

    question: str
    first: str
    second: str
    wins: Share
    ties: Share
    losses: Share
    preference: float
    interval: tuple[float, float] | None
    prompts: int
    raters: int


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha (nominal) over the pairs that more than one rater judged; None where there are none, or all
    said the same, so that there is nothing to agree about.
    """

    question: str
    alpha: float | None
    pairs: int
    raters: int


@dataclass(frozen=True)
class Strength:
    """Bradley-Terry's, as the chance to beat an average set (the geometric mean of all), with its interval over
    prompts. `chance` is None where the votes leave it open: a set that was never, or always, preferred to the others
    has no finite strength. `interval` is None where that is so in more than a twentieth of the draws.
    """

    question: str
    set: str
    chance: float | None
    interval: tuple[float, float] | None


def versus(session: Session, votes: Sequence[Vote]) -> list[Versus]:
    """Of every question and pair of sets with votes."""
    out = []
    for question in session.questions:
        for first, second in combinations(session.sets, 2):
            mine = [v for v in votes if v.question == question and {v.left, v.right} == {first, second}]
            if not mine:
                continue
            wins, ties, losses = (
                Share.count(sum(v.winner == name for v in mine), len(mine)) for name in (first, None, second)
            )

            def preference(some: Sequence[Vote], first: str = first) -> float:
                return float(np.mean([0.5 if v.winner is None else float(v.winner == first) for v in some]))

            prompts, raters = {v.prompt_id for v in mine}, {v.rater for v in mine}
            drawn = _over_prompts(mine, preference)
            interval = _middle(drawn) if drawn else None
            out.append(
                Versus(
                    question, first, second, wins, ties, losses, preference(mine), interval, len(prompts), len(raters)
                )
            )
    return out


def agreement(session: Session, votes: Sequence[Vote]) -> list[Agreement]:
    out = []
    for question in session.questions:
        mine = [v for v in votes if v.question == question]
        # Raters see the sides swapped, so that what they say is the set and not the side.
        said: dict[str, dict[str, str]] = {}
        for vote in mine:
            said.setdefault(vote.pair, {})[vote.rater] = vote.winner or ""
        several = {pair: by_rater for pair, by_rater in said.items() if len(by_rater) > 1}
        raters = sorted({rater for by_rater in several.values() for rater in by_rater})
        alpha = None
        if len({answer for by_rater in several.values() for answer in by_rater.values()}) > 1:
            frame = pd.DataFrame({pair: [by_rater.get(r) for r in raters] for pair, by_rater in several.items()})
            alpha = float(evalica.alpha(frame, distance="nominal").alpha)
        out.append(Agreement(question, alpha, len(several), len(raters)))
    return out


def strengths(session: Session, votes: Sequence[Vote]) -> list[Strength]:
    """Where more than two sets are compared."""
    if len(session.sets) < 3:
        return []
    out = []
    for question in session.questions:
        mine = [v for v in votes if v.question == question]
        if not mine:
            continue
        point = _bradley_terry(session.sets, mine)
        drawn = _over_prompts(mine, lambda some: _bradley_terry(session.sets, some), 200) if point else []
        finite = [one for one in drawn if one]
        for index, name in enumerate(session.sets):
            enough = len(finite) > 0.95 * len(drawn) and drawn
            interval = _middle([one[index] for one in finite]) if enough else None
            out.append(Strength(question, name, point[index] if point else None, interval))
    return out


def _bradley_terry(sets: Sequence[str], votes: Sequence[Vote]) -> list[float] | None:
    """None where no finite strengths fit best: where some sets were never preferred, or equal, to the others."""
    place = {name: index for index, name in enumerate(sets)}
    better = np.zeros((len(sets), len(sets)))
    for vote in votes:
        left, right = place[vote.left], place[vote.right]
        better[left, right] += vote.winner != vote.right
        better[right, left] += vote.winner != vote.left
    if connected_components(better, connection="strong")[0] > 1:
        return None
    winners = [
        evalica.Winner.Draw if v.winner is None else evalica.Winner.X if v.winner == v.left else evalica.Winner.Y
        for v in votes
    ]
    xs, ys = [v.left for v in votes], [v.right for v in votes]
    scores = evalica.bradley_terry(xs, ys, winners, index=pd.Index(sets), limit=10_000).scores[list(sets)].to_numpy()
    chances: list[float] = (scores / (scores + np.exp(np.log(scores).mean()))).tolist()
    return chances


def _over_prompts(votes: Sequence[Vote], statistic: Callable[[list[Vote]], Any], resamples: int = RESAMPLES) -> list:
    """The statistic over draws of prompts with all their votes; [] for one prompt."""
    by_prompt: dict[str, list[Vote]] = {}
    for vote in votes:
        by_prompt.setdefault(vote.prompt_id, []).append(vote)
    groups = list(by_prompt.values())
    if len(groups) < 2:
        return []
    rng = np.random.default_rng(0)
    draws = rng.integers(len(groups), size=(resamples, len(groups)))
    return [statistic([vote for index in draw for vote in groups[index]]) for draw in draws]


def _middle(values: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def regenerate(folder: Path) -> dict[str, str]:
    """Both files by name. Raises ValueError for a folder without a session, OSError."""
    session, votes = Session.load(folder), store.read(folder / VOTES)
    decided = [v for v in votes if v.choice != TIE]
    tree = {
        "sets": list(session.sets),
        "raters": sorted({vote.rater for vote in votes}),
        "votes": len(votes),
        "left of those that are not ties": Share.count(sum(v.choice == LEFT for v in decided), len(decided)).__dict__
        if decided
        else None,
        "versus": [asdict(one) for one in versus(session, votes)],
        "agreement": [asdict(one) for one in agreement(session, votes)],
        "bradley-terry": [asdict(one) for one in strengths(session, votes)],
        "metrics": [asdict(one) for one in against_votes(session, votes, read_scores(folder / ROWS))],
    }
    tree = rounded(tree)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vc2.evaluation.rate", "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"cell": markdown_cell, "percent": _percent, "signed": _signed}
    page = environment.get_template("results.md.jinja").render(
        results=tree, session=session, questions={name: " ".join(QUESTIONS[name]) for name in session.questions}
    )
    return {NUMBERS: json.dumps(tree, indent=1) + "\n", RESULTS: page}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def write(folder: Path) -> None:
    """Raises as `regenerate`."""
    for name, text in regenerate(folder).items():
        replace_text(folder / name, text)
