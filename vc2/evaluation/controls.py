"""What every table stands beside: the same clips frozen and shuffled, and what the world itself shows.

A measure of motion that a frozen or a shuffled clip wins measures something else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..metrics.metric import Clip
from .suites import Prompt


def frozen(clip: Clip) -> Clip:
    """Its first frame, all along."""
    return replace(clip, frames=np.broadcast_to(clip.frames[:1], clip.frames.shape), path=None)


def shuffled(clip: Clip, clip_hash: str) -> Clip:
    """Its frames in another order, which follows from the hash."""
    order = np.random.default_rng(int(clip_hash[:8], 16)).permutation(len(clip.frames))
    if (order == np.arange(len(order))).all():
        order = np.roll(order, 1)
    return replace(clip, frames=clip.frames[order], path=None)


def ground_truth(prompt: Prompt, frames: int) -> Clip | None:
    """What the miniature's world shows for a prompt of its own, in up to 16 frames; None for other prompts."""
    if prompt.scene is None:
        return None
    import torch

    from ..training.sources import paper_world, world

    scene = world.Scene(
        list(world.COLOURS).index(prompt.scene["colour"]),
        world.SHAPES.index(prompt.scene["shape"]),
        list(world.DIRECTIONS).index(prompt.scene["direction"]),
        offset=0,
    )
    stride = max(1, world.SOURCE_FRAMES // frames)
    drawn = paper_world.draw(scene, paper_world.CLEAN, torch.Generator())[::stride][:frames]
    return Clip(drawn.permute(0, 2, 3, 1).numpy(), world.SOURCE_FPS / stride, prompt.prompt)
