"""What a model's clips show, in numbers: composition, motion, picture, and the distance to the training videos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...files.output import whole
from ...networks.unet import VideoUNet
from ...pipeline import TextToVideo, override
from ...training.partition import temporal_names
from ...training.sources import paper_world, world
from .. import judge, picture
from .distance import Distance
from .machine import autocast

BATCH = 16
SPEED = (world.START + world.REACH) / (world.SOURCE_FRAMES - 1) * world.SOURCE_FPS  # pixels a second, of every object


def scenes(some: bool = False) -> list[world.Scene]:
    """The world's 96 prompts; or 32 of them: each seen pair in two directions, each held-out pair in one."""
    colours, shapes, directions = range(len(world.COLOURS)), range(len(world.SHAPES)), range(len(world.DIRECTIONS))
    every = [world.Scene(*ids, 0) for ids in product(colours, shapes, directions)]
    if not some:
        return every
    pairs = list(product(colours, shapes))
    seen = [pair for pair in pairs if paper_world.seen(*pair)]
    held_out = [pair for pair in pairs if not paper_world.seen(*pair)]

    def taken(scene: world.Scene) -> bool:
        pair = (scene.colour, scene.shape)
        if pair in seen:
            return (scene.direction - seen.index(pair)) % 2 == 0
        return (scene.direction - held_out.index(pair)) % 4 == 0

    return [scene for scene in every if taken(scene)]


@dataclass(frozen=True)
class Scored:
    """Of each clip, in the order of `scenes`: right ("1") or wrong ("0") on each attribute, and the measures."""

    right: dict[str, str]
    motion_error: list[float]
    speed: list[float | None]
    tremble: list[float | None]
    defects: dict[str, list[float | None]]
    distance: dict[str, float]

    def row(self) -> dict[str, Any]:
        return asdict(self)


def score(clips: Sequence[np.ndarray], wanted: Sequence[world.Scene], fps: float, distance: Distance) -> Scored:
    """Score clips, uint8 `[T, 64, 64, 3]`, that were made for the scenes of `wanted`."""
    seen = [judge.look_at(clip) for clip in clips]
    verdicts = [judge.verdict(one) for one in seen]
    matches = [verdict.matches(scene) for verdict, scene in zip(verdicts, wanted, strict=True)]
    measured = [picture.measure(one) for one in seen]
    return Scored(
        {name: "".join(str(int(match[name])) for match in matches) for name in matches[0]},
        [round(verdict.motion_error(SPEED / fps), 3) for verdict in verdicts],
        [_number(verdict.speed * fps / SPEED) for verdict in verdicts],
        [_number(verdict.tremble) for verdict in verdicts],
        {name: [_number(row[name]) for row in measured] for name in picture.DEFECTS},
        distance.of(clips, wanted),
    )


def _number(value: float) -> float | None:
    """JSON has no nan."""
    return None if np.isnan(value) else round(float(value), 3)


def sample(model: TextToVideo, wanted: Sequence[world.Scene], seed: int, fps: float) -> list[np.ndarray]:
    """A clip of each scene; the noise follows from the seed and the scene, so that all arms of a seed have the same."""
    settings, clips = override(model.settings, fps=fps), []
    order = {scene: number for number, scene in enumerate(scenes())}
    for start in range(0, len(wanted), BATCH):
        some = wanted[start : start + BATCH]
        with autocast():
            clips += list(model([scene.caption for scene in some], [1000 * seed + order[s] for s in some], settings))
    return clips


def save_clips(path: Path, clips: Sequence[np.ndarray]) -> None:
    """Whole or not at all."""
    with whole(path) as temporary:
        np.savez_compressed(temporary, clips=np.stack(clips))


@torch.no_grad()
def weight_change(after: VideoUNet, before: VideoUNet) -> dict[str, float]:
    """How far spatial and temporal weights have come: the norm of the change over the norm."""
    temporal, start = temporal_names(before), dict(before.named_parameters())
    sums = {"spatial": np.zeros(2), "temporal": np.zeros(2)}
    for name, tensor in after.named_parameters():
        change = tensor - start[name]
        sums["temporal" if name in temporal else "spatial"] += [
            float(change.square().sum()),
            float(start[name].square().sum()),
        ]
    return {part: round(float(np.sqrt(change / whole)), 5) for part, (change, whole) in sums.items()}
