"""Which clips a report shows, by rule and never by hand, and how they lie in the page: as strips of frames, which play
in step in every browser whatever codecs it has.
"""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...files import video
from ..rows import OK, Score
from .material import Material
from .measures import known

SIDE = 256  # pixels of the longer side
FRAMES = 32  # at most; of longer clips every second, third ... frame
QUALITY = 60
RULES = ("worst", "median", "random")


@dataclass(frozen=True)
class Shown:
    """A clip of the page. `rules`: of RULES, and "prompt" for those that are shown side by side."""

    set: str
    clip: str
    prompt_id: str | None
    prompt: str
    seed: int | None
    value: float | None
    rules: tuple[str, ...]

    def tree(self) -> dict[str, Any]:
        return {**asdict(self), "rules": list(self.rules)}


def default_measure(sets: Sequence[str], scores: Sequence[Score]) -> str | None:
    """The first measure of single clips that has a better side and that every set has."""
    for name in dict.fromkeys(score.metric for score in scores if score.clip is not None):
        measure = known(name)
        having = {score.set for score in scores if score.metric == name and score.status == OK}
        if measure and measure.better != "neither" and set(sets) <= having:
            return name
    return None


def choose(material: Material) -> list[Shown]:
    """Of each set its worst, median and a random clip by `material.by`; and of all sets the same random prompts, with
    the lowest seed that all have. Everything follows from the scores and the seed.
    """
    names = [one.name for one in material.sets]
    clips = _clips(material.scores)
    rules: dict[tuple[str, str], list[str]] = {}
    values: dict[tuple[str, str], float] = {}
    for name in names:
        mine = sorted(clip for one, clip in clips if one == name)
        for rule, clip in _by_measure(material, name, mine, values).items():
            rules.setdefault((name, clip), []).append(rule)
    for key in _side_by_side(material, names, clips):
        rules.setdefault(key, []).append("prompt")
    out = []
    for (name, clip), why in sorted(rules.items(), key=lambda item: (names.index(item[0][0]), item[0][1])):
        score = clips[name, clip]
        shown_value = values.get((name, clip))
        out.append(
            Shown(name, clip, score.prompt_id, score.prompt or "", score.seed, shown_value, tuple(dict.fromkeys(why)))
        )
    return out


def _clips(scores: Iterable[Score]) -> dict[tuple[str, str], Score]:
    return {(s.set, s.clip): s for s in scores if s.clip is not None and s.control is None}


def _by_measure(
    material: Material, name: str, clips: Sequence[str], values: dict[tuple[str, str], float]
) -> dict[str, str]:
    if not clips:
        return {}
    rng = np.random.default_rng([material.seed, *name.encode()])
    chosen = {"random": clips[int(rng.integers(len(clips)))]}
    if material.by is None:
        return chosen
    for score in material.scores:
        key = (score.set, score.metric, score.control)
        if key == (name, material.by, None) and score.clip is not None and score.value is not None:
            values[name, score.clip] = score.value
    ranked = sorted((value, clip) for (one, clip), value in values.items() if one == name)
    if ranked:
        measure = known(material.by)
        worst = ranked[-1] if measure and measure.better == "lower" else ranked[0]
        chosen |= {"worst": worst[1], "median": ranked[len(ranked) // 2][1]}
    return chosen


def _side_by_side(
    material: Material, names: Sequence[str], clips: Mapping[tuple[str, str], Score]
) -> list[tuple[str, str]]:
    by_prompt: dict[str, dict[str, dict[int, str]]] = {}
    for (name, clip), score in sorted(clips.items()):
        if score.prompt_id is not None:
            seeds = by_prompt.setdefault(score.prompt_id, {}).setdefault(name, {})
            seeds.setdefault(-1 if score.seed is None else score.seed, clip)
    shared = sorted(prompt for prompt, of_sets in by_prompt.items() if set(of_sets) == set(names))
    rng = np.random.default_rng(material.seed)
    chosen = sorted(rng.choice(len(shared), min(material.prompts, len(shared)), replace=False)) if shared else []
    out = []
    for prompt in (shared[int(index)] for index in chosen):
        of_sets = by_prompt[prompt]
        common = set.intersection(*(set(seeds) for seeds in of_sets.values()))
        for name in names:  # other models' clips may have other seeds, or none
            out.append((name, of_sets[name][min(common or of_sets[name])]))
    return out


@dataclass(frozen=True)
class Strip:
    """The frames of a clip below one another, as a data URI; `seconds` of a round, `width` and `height` of a frame."""

    src: str
    frames: int
    seconds: float
    width: int
    height: int

    def layout(self) -> dict[str, Any]:
        """All but the picture, which is named by its SHA-256."""
        return {**asdict(self), "src": hashlib.sha256(self.src.encode()).hexdigest()}


def strip(path: Path) -> Strip:
    """Raises OSError for a file that is no clip."""
    return strip_of(*video.read_clip(path))


def strip_of(frames: np.ndarray, fps: float) -> Strip:
    """Of frames uint8 `[T, H, W, 3]`."""
    every = -(-len(frames) // FRAMES)
    seconds = len(frames[::every]) * every / fps
    frames = frames[::every]
    scale = min(1.0, SIDE / max(frames.shape[1:3]))
    size = (max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale)))
    sheet = Image.new("RGB", (size[0], size[1] * len(frames)))
    for index, frame in enumerate(frames):
        sheet.paste(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS), (0, index * size[1]))
    data = io.BytesIO()
    sheet.save(data, "WEBP", quality=QUALITY, method=4)
    src = "data:image/webp;base64," + base64.b64encode(data.getvalue()).decode()
    return Strip(src, len(frames), round(seconds, 3), *size)
