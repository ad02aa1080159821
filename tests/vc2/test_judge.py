"""The judge of the miniature's world is right about ground truth, noise and all, and never about a frozen clip."""

from __future__ import annotations

import numpy as np
import torch

from vc2.evaluation.judge import judge
from vc2.training.sources import world


def clip(scene: world.Scene, frames: int = 8) -> np.ndarray:
    ids = torch.ones(frames, dtype=torch.long)
    rendered = world.render(ids * scene.colour, ids * scene.shape, scene.positions()[:: 16 // frames])
    return ((rendered + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()


def some_scenes():
    scenes = world.World("clean", "clips")
    return [scenes.entries[index].scene for index in scenes.order[:24]]


def test_ground_truth_is_right_even_with_noise():
    rng = np.random.default_rng(0)
    for scene in some_scenes():
        frames = clip(scene)
        assert judge(frames).matches(scene)["joint"]
        noisy = (frames + rng.normal(0, 12, frames.shape)).clip(0, 255).astype(np.uint8)
        assert judge(noisy).matches(scene)["joint"]


def test_what_is_wrong_is_wrong():
    for scene in some_scenes()[:8]:
        frames = clip(scene)
        assert not judge(frames[::-1]).matches(scene)["direction"]
        assert not judge(np.repeat(frames[:1], 8, 0)).matches(scene)["direction"]
        assert not judge(frames[..., ::-1]).matches(scene)["colour"] or list(world.COLOURS)[scene.colour] in (
            "green",
            "purple",
            "white",
        )
        assert judge(np.full_like(frames, world.BACKGROUND)).matches(scene) == dict.fromkeys(
            ("colour", "shape", "direction", "joint"), False
        )
