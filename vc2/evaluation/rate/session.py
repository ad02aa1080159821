"""What is compared: pairs of clips of different sets on one prompt, and which lies on which side for whom."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ...metrics.metric import file_hash
from ..sets import clips_of, read_manifest
from ..suites import Suite
from ..writing import replace_text

SESSION = "session.json"
PLAYED = (".mp4", ".webm", ".mov", ".gif")  # by browsers
QUESTIONS = {
    "visual": ("Which clip looks better?", "Judge single pictures: detail, light, no noise, no watermark."),
    "motion": ("Which clip moves better?", "Judge the movement: natural, steady, enough of it."),
    "alignment": (
        "Which clip shows better what the text says?",
        "All things in it, put together as the text has them.",
    ),
    "overall": ("Which clip do you prefer?", "All in all."),
}


@dataclass(frozen=True)
class Entry:
    """A clip. `token` names it to the browser: it follows from nothing that tells the set."""

    set: str
    clip: str
    hash: str
    token: str


@dataclass(frozen=True)
class Pair:
    """Two clips on one prompt and, where both sets have it, one seed; sets in the order of the session."""

    id: str
    prompt_id: str
    prompt: str
    seed: int | None
    first: Entry
    second: Entry

    def entry(self, name: str) -> Entry:
        return self.first if self.first.set == name else self.second


@dataclass(frozen=True)
class Session:
    """`folders` of the sets by name; `seed` decides sides and order; `asked`: the options that it was begun with."""

    sets: tuple[str, ...]
    folders: tuple[str, ...]
    questions: tuple[str, ...]
    seed: int
    pairs: tuple[Pair, ...]
    asked: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        replace_text(folder / SESSION, json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Session:
        """Raises ValueError for a file that holds none, OSError."""
        path = folder / SESSION
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
            pairs = tuple(
                Pair(**{**pair, "first": Entry(**pair["first"]), "second": Entry(**pair["second"])})
                for pair in tree["pairs"]
            )
            names = {name: tuple(tree[name]) for name in ("sets", "folders", "questions")}
            return cls(**names, seed=tree["seed"], pairs=pairs, asked=tree.get("asked", {}))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} is not what `rate` writes ({error!r})") from error

    def first_is_left(self, rater: str, pair: str) -> bool:
        """The side of a pair is one throw for each rater, the same whenever the page is opened."""
        return _draw(self.seed, "side", rater, pair) % 2 == 0

    def order(self, rater: str) -> list[Pair]:
        """Each rater sees the pairs in an order of their own."""
        return sorted(self.pairs, key=lambda pair: _draw(self.seed, "order", rater, pair.id))


def _draw(*what: object) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps(what).encode()).digest()[:8])


def begin(
    folders: Sequence[Path],
    suite: Suite | None,
    questions: Sequence[str],
    prompts: int | None,
    seeds: int,
    seed: int,
    meetings: Sequence[tuple[str, str]] = (),
    count: int | None = None,
) -> Session:
    """All pairs of sets, or those that `meetings` names, on the prompts that both have; `prompts`: as many of them,
    drawn by the seed; `seeds`: clips of a prompt; `count`: as many pairs of clips, drawn by the seed, each meeting and
    each prompt as often as the others. Raises ValueError for what cannot be compared.
    """
    if not questions:
        raise ValueError(f"no question is asked; there are {', '.join(QUESTIONS)}")
    if unknown := set(questions) - set(QUESTIONS):
        raise ValueError(f"no question is called {', '.join(sorted(unknown))}; there are {', '.join(QUESTIONS)}")
    texts = {prompt.id: prompt.prompt for prompt in suite.prompts} if suite else {}
    clips = {_name(folder): _clips(folder, texts) for folder in folders}
    if len(clips) < len(folders):
        raise ValueError("two sets have the same name; name their folders apart")
    if len(clips) < 2:
        raise ValueError("two sets are needed, or more")
    if unknown := {name for both in meetings for name in both} - set(clips):
        raise ValueError(f"no set is called {', '.join(sorted(unknown))}; there are {', '.join(clips)}")
    if equal := [first for first, second in meetings if first == second]:
        raise ValueError(f"{equal[0]} cannot meet itself; name two sets")
    chosen = _prompts(clips, prompts, seed)
    secret = np.random.default_rng().bytes(16)  # of no seed: who knows it could work tokens out

    def entry(name: str, path: Path) -> Entry:
        token = hashlib.sha256(secret + f"{name}/{path.name}".encode()).hexdigest()[:24]
        return Entry(name, path.name, file_hash(path), token)

    found: list[tuple[str, str, str, int, Path, Path]] = []
    for first, second in meetings or combinations(clips, 2):
        for prompt in chosen:
            ours, theirs = clips[first].get(prompt, {}), clips[second].get(prompt, {})
            common = sorted(set(ours) & set(theirs))[:seeds]
            # Another model's clips may have no seeds, or others.
            matched = [(key, ours[key], theirs[key]) for key in common]
            if not matched and ours and theirs:
                matched = [(-1, ours[min(ours)], theirs[min(theirs)])]
            found += [(first, second, prompt, key, a, b) for key, a, b in matched]
    if not found:
        raise ValueError(f"{' and '.join(clips)} have no prompt in common; clips are named <prompt id>-<seed>.mp4")
    if count is not None and count > len(found):
        raise ValueError(f"{count} pairs were asked for, and there are {len(found)}")
    pairs = tuple(
        Pair(
            f"{number:05d}",
            prompt,
            texts.get(prompt, prompt),
            None if key < 0 else key,
            entry(first, a),
            entry(second, b),
        )
        for number, (first, second, prompt, key, a, b) in enumerate(_spread(found, count, seed) if count else found)
    )
    return Session(tuple(clips), tuple(map(str, folders)), tuple(questions), seed, pairs)


def _spread(
    found: Sequence[tuple[str, str, str, int, Path, Path]], count: int, seed: int
) -> list[tuple[str, str, str, int, Path, Path]]:
    """`count` of the pairs: one after another of the meeting that has come least often, on the prompt that has; the
    seed decides between equals.
    """
    rng = np.random.default_rng(seed)
    left = [found[int(index)] for index in rng.permutation(len(found))]
    meetings, prompts, chosen = Counter[tuple[str, str]](), Counter[str](), set()
    for _ in range(count):
        one = min(left, key=lambda pair: (meetings[pair[:2]], prompts[pair[2]]))
        left.remove(one)
        meetings[one[:2]] += 1
        prompts[one[2]] += 1
        chosen.add(one)
    return [pair for pair in found if pair in chosen]


def _name(folder: Path) -> str:
    manifest = read_manifest(folder)
    return manifest.name if manifest else folder.resolve().name


def _clips(folder: Path, texts: dict[str, str]) -> dict[str, dict[int, Path]]:
    """By prompt and seed (-1: none)."""
    out: dict[str, dict[int, Path]] = {}
    for clip in clips_of(folder, texts):
        if clip.path.suffix.lower() not in PLAYED:
            raise ValueError(f"{clip.path}: browsers play {', '.join(PLAYED)}; convert the set to one of them")
        if clip.prompt_id is not None or not texts:
            out.setdefault(clip.prompt_id or clip.path.stem, {})[-1 if clip.seed is None else clip.seed] = clip.path
    return out


def _prompts(clips: dict[str, dict[str, dict[int, Path]]], count: int | None, seed: int) -> list[str]:
    several = sorted(
        prompt
        for prompt in set().union(*clips.values())
        if sum(prompt in of_prompts for of_prompts in clips.values()) > 1
    )
    if count is None or count >= len(several):
        return several
    rng = np.random.default_rng(seed)
    return [several[int(index)] for index in sorted(rng.choice(len(several), count, replace=False))]
