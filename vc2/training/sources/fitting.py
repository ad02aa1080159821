"""Frames of any size and shape to those that the network gets."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

MOST_ENLARGED = 4  # times the pixels that are wanted, in a picture of which most will be cut off


def fit(frame: np.ndarray, width: int, height: int, place: tuple[float, float], aspect: float = 1.0) -> Tensor:
    """A frame uint8 `[H, W, 3]` -> uint8 `[3, height, width]`: resized to cover, then cropped at `place` (0..1 of what
    is cut off, across and down). `aspect`: how much wider than high its pixels are.
    """
    h, w = frame.shape[:2]
    scale = max(width / (w * aspect), height / h)
    size = (max(height, round(h * scale)), max(width, round(w * aspect * scale)))
    if size[0] * size[1] > MOST_ENLARGED * width * height:  # a strip: what covers in full may not fit in memory
        rows, columns = min(h, round(height / scale)), min(w, round(width / (scale * aspect)))
        top, left = round((h - rows) * place[1]), round((w - columns) * place[0])
        frame, size = frame[top : top + max(1, rows), left : left + max(1, columns)], (height, width)
    picture = torch.tensor(frame).permute(2, 0, 1)[None]
    if size != frame.shape[:2]:
        # torch's own, on bytes: kornia's antialiasing blurs in floating point first and took 47 ms for a 336x596 frame
        # where this takes 1.2.
        picture = F.interpolate(picture, size, mode="bilinear", antialias=True)
    top, left = round((size[0] - height) * place[1]), round((size[1] - width) * place[0])
    return picture[0, :, top : top + height, left : left + width].contiguous()
