"""Frames as metrics want them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def luma(frames: np.ndarray) -> np.ndarray:
    """Brightness of frames `[T, H, W, 3]`: float32 `[T, H, W]` of 0..255 (BT.601)."""
    return frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def as_tensor(frames: np.ndarray) -> Tensor:
    """uint8 `[T, H, W, 3]` -> float32 `[T, 3, H, W]` of 0..1."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255


def spread(count: int, frames: np.ndarray) -> np.ndarray:
    """At most `count` of the frames, evenly from the first to the last."""
    if len(frames) <= count:
        return frames
    return frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]


def best_device() -> torch.device:
    """Where the networks of metrics run."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")
