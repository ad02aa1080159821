"""What a report is made of, as its folder keeps it: `rows.jsonl` (the scores) and `about.json` (everything else)."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...metrics.metric import file_hash
from ...plural import plural
from ..rows import GROUND_TRUTH, Score, current, of_clips, of_truth, read_scores, write_scores
from ..sets import SCORES, clips_of, read_manifest
from ..writing import replace_text

log = logging.getLogger(__name__)

ROWS, ABOUT = "rows.jsonl", "about.json"
FORMAT = 1


@dataclass(frozen=True)
class SetOfClips:
    """A column. `manifest`: what made the clips, None for those of another program."""

    name: str
    folder: str
    clips: int
    manifest: dict[str, Any] | None


@dataclass(frozen=True)
class Material:
    """`by`: the measure that worst and median go by; `prompts`: how many are shown side by side; `seed` draws them.
    `shown`: the embedded clips, as `clips.Shown.tree()`; `pictures`: how their strips lie in the page, and the SHA-256
    of each, in the same order.
    """

    title: str
    sets: tuple[SetOfClips, ...]
    scores: tuple[Score, ...]
    by: str | None
    prompts: int
    seed: int
    made: dict[str, Any]
    shown: tuple[dict[str, Any], ...] = ()
    pictures: tuple[dict[str, Any], ...] = ()

    def save(self, folder: Path) -> None:
        """Raises OSError."""
        write_scores(folder / ROWS, self.scores)
        tree = {"format": FORMAT, **{name: value for name, value in vars(self).items() if name != "scores"}}
        tree["sets"] = [asdict(one) for one in self.sets]
        replace_text(folder / ABOUT, json.dumps(tree, indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Material:
        """Raises ValueError for a folder that holds no report, OSError."""
        path = folder / ABOUT
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            if tree.pop("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            sets = tuple(SetOfClips(**one) for one in tree.pop("sets"))
            scores = tuple(read_scores(folder / ROWS))
            shown, pictures = tuple(tree.pop("shown")), tuple(tree.pop("pictures"))
            return cls(**tree, sets=sets, scores=scores, shown=shown, pictures=pictures)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not what `report` writes ({error!r}); make the report again") from error


def read_sets(folders: Sequence[Path], rows: Sequence[Path]) -> tuple[tuple[SetOfClips, ...], tuple[Score, ...]]:
    """The sets and their current scores, from each folder's own rows and from other files: those of the clips that are
    there now, whose hashes tell them. Raises ValueError.
    """
    named = [score for path in rows for score in read_scores(path)]
    sets: list[SetOfClips] = []
    scores: list[Score] = []
    for folder in folders:
        manifest, clips = read_manifest(folder), {clip.path.name: file_hash(clip.path) for clip in clips_of(folder)}
        every = [*read_scores(folder / SCORES), *named]
        here = of_clips(every, clips)
        names = Counter(score.set for score in here or every)
        own = manifest.name if manifest else folder.resolve().name
        name = own if own in names or not names else names.most_common(1)[0][0]
        mine = [score for score in here if score.set == name]
        _warn_of_stale(folder, clips, [score for score in every if score.set == name], mine)
        sets.append(SetOfClips(name, str(folder), len(clips), manifest.json() if manifest else None))
        truth = of_truth((score for score in every if score.set == name), {score.prompt_id for score in mine})
        scores += current([*mine, *truth])
    twice = [name for name, times in Counter(one.name for one in sets).items() if times > 1]
    if twice:
        raise ValueError(f"more than one set is called {twice[0]!r}; score them with --name")
    if not scores:
        raise ValueError(f"no scores of {', '.join(map(str, folders))}; run `python -m vc2.evaluation score` first")
    return tuple(sets), tuple(scores)


def _warn_of_stale(folder: Path, clips: Container[str | None], every: Sequence[Score], mine: Sequence[Score]) -> None:
    """Of a set's scores, tell which are not of its clips as they are."""
    there = {score.clip for score in mine}
    if changed := {score.clip for score in every if score.clip in clips} - there:
        log.warning("%s: %s changed since it was scored; score the set again", folder, plural(len(changed), "clip"))
    whole = {score.metric for score in every if score.clip is None and score.control != GROUND_TRUTH}
    if left_out := sorted(whole - {score.metric for score in mine if score.clip is None}):
        log.warning("%s: %s were of other clips; score the set again", folder, ", ".join(left_out))
