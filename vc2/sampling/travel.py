"""Prompts that change over a clip."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

MOST_TOKENS = 16 * 77


def keyframes(text: str, frames: int) -> list[tuple[int, str]]:
    """(frame, prompt) in order of frames, from lines `frame: prompt`; lines that start with # are left out.

    Raises ValueError that names the line.
    """
    prompts: dict[int, str] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        if line.startswith("#"):
            continue
        match = re.fullmatch(r"(\d+)\s*[:\N{FULLWIDTH COLON}]\s*(.*)", line)
        if not match:
            raise ValueError(
                f"prompt travel: expected `frame: prompt`, such as `8: a red circle`, found {_shortened(line)!r}"
            )
        number = match[1]
        if len(number) > 9 or int(number) >= frames:  # Python refuses to read thousands of digits
            raise ValueError(
                f"prompt travel: frame {_shortened(number)} in {_shortened(line)!r} is beyond the clip, whose frames"
                f" are 0 to {frames - 1}"
            )
        frame = int(number)
        if frame in prompts:
            raise ValueError(f"prompt travel: two prompts for frame {frame}: {prompts[frame]!r} and {match[2]!r}")
        prompts[frame] = match[2]
    if not prompts:
        raise ValueError("prompt travel: no prompt; write one a line, as `0: a red circle`")
    return sorted(prompts.items())


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


def common_length(lengths: Sequence[int]) -> int:
    """How many tokens every prompt has once each is repeated a whole number of times, from how many each has.

    Attention to a repeated text is attention to the text, and only then. Raises ValueError where that takes over
    MOST_TOKENS: prompts of 3, 4 and 5 times 77 would take 60 times 77, for every frame.
    """
    tokens = math.lcm(*lengths)
    if tokens > max(MOST_TOKENS, *lengths):
        lots = ", ".join(str(length // 77) for length in sorted(set(lengths)))
        raise ValueError(
            f"prompt travel: prompts of {lots} times 77 tokens do not go together, for repeated to one length they give"
            f" every frame {tokens}; bring them to like lengths (75 tokens of one's own are some 55 words)"
        )
    return tokens


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
