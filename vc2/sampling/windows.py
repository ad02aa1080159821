"""Clips longer than the model was trained on: windows over their frames, and FreeNoise's initial noise.

FreeNoise: arXiv 2310.15169, section 4.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cover(frames: int, length: int, stride: int, looped: bool = False) -> list[Tensor]:
    """Indices of the frames in each window, `[length]` long each; every frame lies in at least one.

    A clip of at most `length` frames is one window. The last window is moved back so that it ends with the clip; looped
    windows run on from the last frame to the first instead. Raises ValueError unless 1 <= stride <= length.
    """
    _check(length, stride)
    if frames <= length:
        return [torch.arange(frames)]
    if looped:
        return [torch.arange(start, start + length) % frames for start in range(0, frames, stride)]
    starts = [*range(0, frames - length, stride), frames - length]
    return [torch.arange(start, start + length) for start in starts]


def disjoint(frames: int, length: int, stride: int) -> list[range]:
    """The first frames of `cover`'s windows, in groups whose windows do not overlap.

    For more frames than `length`, and windows that are not looped. Raises ValueError as `cover`.
    """
    _check(length, stride)
    last, apart = frames - length, math.ceil(length / stride) * stride
    return [range(first, last, apart) for first in range(0, min(apart, last), stride)] + [range(last, last + 1, apart)]


def _check(length: int, stride: int) -> None:
    if not 1 <= stride <= length:
        raise ValueError(f"windows of {length} frames can be 1 to {length} frames apart, found {stride}")


def weights(length: int) -> Tensor:
    """How much each frame of a window counts where windows overlap: 1, 2, ..., 2, 1 (official FreeNoise)."""
    return torch.minimum(torch.arange(1, length + 1), torch.arange(length, 0, -1)).float()


def reschedule_noise(noise: Tensor, length: int, stride: int, generator: torch.Generator) -> Tensor:
    """FreeNoise's initial noise: `noise` `[T, ...]` with every frame from `length` on replaced by an earlier one.

    Each run of `stride` frames repeats the run `length` frames before it, shuffled. Windows `stride` apart then start
    from the same set of noise frames, so that they show the same thing.
    """
    out = noise.clone()
    for start in range(length, len(noise), stride):
        count = min(stride, len(noise) - start)
        order = torch.randperm(stride, generator=generator)[:count]
        out[start : start + count] = out[start - length : start - length + stride][order.to(noise.device)]
    return out
