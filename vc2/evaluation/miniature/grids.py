"""Small animated pictures of clips for the report; which clips they show follows from the rows by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ...files.output import whole
from ...training.rng import torch_generator
from ...training.sources import paper_world, world
from .arms import Place
from .clips import clips_file
from .evidence import Evidence, Seed
from .gates import FPS
from .score import scenes

MODELS = (
    "F-base",
    "F-Spa-DIR",
    "F-Spa-LORA",
    "F-Temp-LORA",
    "F-Spa-Temp-DIR",
    "F-Spa-DIR-LAION",
    "P-base",
    "P-Spa-LORA",
    "P-Temp-LORA",
)
TRUTH = {"videos": paper_world.LOW, "clean": paper_world.CLEAN}
PROMPTS = 4  # random ones, the same for all
CELL, GAP, LABEL, SIDE = 88, 4, 20, 56  # pixels
PAPER, INK = (22, 27, 34), (201, 209, 217)
BY_MOTION, RANDOM = "clips-by-motion.webp", "clips-random.webp"


@dataclass(frozen=True)
class Choice:
    """Indices into `scenes`: of each model its worst, median and a random clip, and of all models the same."""

    seed: int
    by_motion: dict[str, dict[str, int]]
    random: list[int]

    @property
    def captions(self) -> dict[int, str]:
        """Of the prompts that all models have, by their numbers."""
        return {index: scenes()[index].caption for index in self.random}

    def tree(self) -> dict[str, Any]:
        return asdict(self)


def choose(evidence: Evidence) -> Choice | None:
    """Of the first seed; None without one, and for a sketch."""
    if not evidence.seeds or evidence.kind == "sketch":
        return None
    seed = evidence.seeds[0]
    rng = np.random.default_rng(seed.number)
    by_motion: dict[str, dict[str, int]] = {"worst": {}, "median": {}, "random": {}}
    for name in MODELS:
        errors = seed.results.rows[name]["motion_error"]
        order = np.argsort(errors, kind="stable")
        by_motion["worst"][name] = int(order[-1])
        by_motion["median"][name] = int(order[len(order) // 2])
        by_motion["random"][name] = int(rng.integers(len(order)))
    prompts = rng.choice(len(scenes()), PROMPTS, replace=False)
    return Choice(seed.number, by_motion, [int(index) for index in prompts])


def draw(choice: Choice, seed: Seed, place: Place, folder: Path) -> bool:
    """Write both pictures; False where the clips are not here."""
    paths = {name: clips_file(place, seed.number, seed.results.rows[name]) for name in MODELS}
    if not all(path.is_file() for path in paths.values()):
        return False
    clips = {name: np.load(path)["clips"] for name, path in paths.items()}
    by_motion = {
        rule: [(clips[name][indices[name]], str(indices[name])) for name in MODELS]
        for rule, indices in choice.by_motion.items()
    }
    _save(folder / BY_MOTION, MODELS, by_motion)
    random = {
        f"prompt {index}": [
            *((_truth(look, index), "") for look in TRUTH.values()),
            *((clips[name][index], "") for name in MODELS),
        ]
        for index in choice.random
    }
    _save(folder / RANDOM, (*TRUTH, *MODELS), random)
    return True


def _truth(look: paper_world.Look, index: int) -> np.ndarray:
    frames = paper_world.draw(scenes()[index], look, torch_generator(9, index))
    return frames[:: world.SOURCE_FPS // FPS].permute(0, 2, 3, 1).numpy()


def _save(path: Path, columns: Sequence[str], grid: dict[str, list[tuple[np.ndarray, str]]]) -> None:
    """An animated WebP, whole or not at all."""
    font = ImageFont.load_default(11)
    width = SIDE + len(columns) * (CELL + GAP) + GAP
    height = LABEL + len(grid) * (CELL + GAP) + GAP
    frames = []
    for time in range(FPS):
        frame = Image.new("RGB", (width, height), PAPER)
        brush = ImageDraw.Draw(frame)
        for column, name in enumerate(columns):
            brush.text((SIDE + GAP + column * (CELL + GAP) + CELL / 2, 5), name, INK, font, anchor="ma")
        for line, (name, cells) in enumerate(grid.items()):
            top = LABEL + GAP + line * (CELL + GAP)
            brush.text((SIDE - 2, top + CELL / 2), name, INK, font, anchor="rm")
            for column, (clip, note) in enumerate(cells):
                left = SIDE + GAP + column * (CELL + GAP)
                frame.paste(Image.fromarray(clip[time]).resize((CELL, CELL), Image.Resampling.BICUBIC), (left, top))
                brush.text((left + 3, top + 2), note, INK, font, stroke_width=2, stroke_fill=PAPER)
        frames.append(frame)
    with whole(path) as temporary:
        frames[0].save(
            temporary, save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0, quality=70, method=4
        )
