"""Prompts that change over a clip."""

from __future__ import annotations

import re

import torch
from torch import Tensor


def keyframes(text: str, frames: int) -> list[tuple[int, str]]:
    """(frame, prompt) in order of frames, from lines `frame: prompt`. Raises ValueError that names the line."""
    prompts: dict[int, str] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        match = re.fullmatch(r"(\d+)\s*[:\N{FULLWIDTH COLON}]\s*(.*)", line)
        if not match:
            raise ValueError(f"prompt travel: expected `frame: prompt`, such as `8: a red circle`, found {line!r}")
        frame = int(match[1])
        if frame >= frames:
            raise ValueError(
                f"prompt travel: frame {frame} in {line!r} is beyond the clip, whose frames are 0 to {frames - 1}"
            )
        if frame in prompts:
            raise ValueError(f"prompt travel: two prompts for frame {frame}: {prompts[frame]!r} and {match[2]!r}")
        prompts[frame] = match[2]
    if not prompts:
        raise ValueError("prompt travel: no prompt; write one a line, as `0: a red circle`")
    return sorted(prompts.items())


def blend(values: Tensor, at: list[int], frames: int, hold: bool = False) -> Tensor:
    """One value a frame `[T, ...]` from one a keyframe `[K, ...]`, at ascending frames `at`.

    Linear between keyframes, or (`hold`) each held until the next.
    """
    keys = torch.tensor(at, dtype=torch.float32)
    frame = torch.arange(frames, dtype=torch.float32).clamp(keys[0], keys[-1])
    after = torch.searchsorted(keys, frame, right=True).clamp(1, max(1, len(at) - 1))
    before = after - 1
    after = after.clamp(max=len(at) - 1)
    gap = (keys[after] - keys[before]).clamp(min=1)
    weight = ((frame - keys[before]) / gap).clamp(0, 1)
    if hold:
        weight = weight.floor()
    weight = weight.to(values).reshape(-1, *(1,) * (values.ndim - 1))
    return values[before] * (1 - weight) + values[after] * weight
