"""Convolutions that are computed as something faster. They are the official layers in all else: names, shapes of the
weights, and the class that the host casts, offloads and patches.
"""

from __future__ import annotations

from functools import cache

import torch.nn.functional as F
from torch import Tensor


@cache
def over_time(operations) -> type:
    """`operations.Conv3d` for kernels (k, 1, 1): x `[B, C, T, H, W]` -> the same with C' channels.

    As a convolution of frames by pixels. torch's 3D ones are slow on a CPU, and with some releases of cuDNN in half
    precision too (pytorch issues 166122, 166643).
    """

    class ConvOverTime(operations.Conv3d):
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, *_: object) -> Tensor:
            out = F.conv2d(x.flatten(-2), weight.squeeze(-1), bias, self.stride[:2], self.padding[:2])
            return out.unflatten(-1, x.shape[-2:])

    return ConvOverTime


@cache
def of_tokens(conv: type) -> type:
    """`conv` (a Conv1d or Conv2d of size 1), applied to tokens `[N, L, C]` as the Linear that it is."""

    class ConvOfTokens(conv):  # type: ignore[misc, valid-type]
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, *_: object) -> Tensor:
            return F.linear(x, weight.flatten(1), bias)

    return ConvOfTokens
