"""What the report prints beside the models' scores and no seed changes: how many weights each model trains, and what
the judge says of clips whose truth is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...networks.config import UNetConfig, as_config
from ...networks.unet import VideoUNet
from ...training.initialise import load_autoencoder
from ...training.partition import mark_what_learns
from ...training.rng import torch_generator
from ...training.sources import paper_world, world
from ..writing import replace_text
from .arms import BY_NAME, ENCODERS, ROOT, Place
from .distance import Distance
from .gates import FPS, Clips, through
from .score import scenes, score

LOOKS = {"clean": paper_world.CLEAN, "low quality": paper_world.LOW}
BEHIND = "behind the autoencoder"


@cache
def trained_weights() -> dict[str, int]:
    """Parameters that each arm trains."""
    counts = {}
    for arm in BY_NAME.values():
        recipe = Place(ROOT, ENCODERS).recipe(arm, 0)
        with torch.device("meta"):
            unet = VideoUNet(as_config(UNetConfig, recipe.networks.unet))
            mark_what_learns(unet, recipe)
        counts[arm.name] = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    return counts


def _truth(look: paper_world.Look) -> Clips:
    """A clip of each of `scenes`, uint8 `[8, 64, 64, 3]`, seen through a look."""
    clips = []
    for index, scene in enumerate(scenes()):
        frames = paper_world.draw(scene, look, torch_generator(9, index))
        clips.append(frames[:: world.SOURCE_FPS // FPS].permute(0, 2, 3, 1).numpy())
    return clips


def calibration(encoders: Path) -> list[dict[str, Any]]:
    """Rows of ground truth and of what must not be taken for it, scored as a model's clips are."""
    autoencoder = load_autoencoder(encoders)
    distance, rng, wanted = Distance(autoencoder), np.random.default_rng(0), scenes()
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "ground truth": lambda clip: clip,
        "frozen": lambda clip: np.repeat(clip[:1], len(clip), 0),
        "shuffled": lambda clip: clip[rng.permutation(len(clip))],
    }
    rows = []
    for name, look in LOOKS.items():
        clips = through(autoencoder, _truth(look))
        for change, apply in changes.items():
            scored = score([apply(clip) for clip in clips], wanted, FPS, distance).row()
            rows.append({"kind": f"{change}, {name}, {BEHIND}", "prompts": len(wanted), **scored})
    return rows


def measured(path: Path, encoders: Path, fingerprints: dict[str, str], make: bool) -> list[dict[str, Any]]:
    """The calibration that `path` holds, where it is of this world and these encoders; else, if asked to `make` it and
    the encoders are there, made and written. [] where it cannot be had.
    """
    identity = {"world": paper_world.world_hash(), "encoders": fingerprints}
    if path.is_file():
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if all(tree[name] == value for name, value in identity.items()):
            rows: list[dict[str, Any]] = tree["calibration"]
            return rows
    if not make or not encoders.is_file():
        return []
    rows = calibration(encoders)
    replace_text(path, json.dumps({**identity, "calibration": rows}) + "\n")
    return rows
