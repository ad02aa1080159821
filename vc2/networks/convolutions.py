"""Convolutions that are computed as something faster. They are the official layers in all else: names, shapes of the
weights, what goes in and out, and the class that the host casts, offloads and patches.
"""

from __future__ import annotations

from functools import cache

import torch.nn.functional as F
from torch import Tensor

from .linear import linear

# Layers are made as `over_time(operations.Conv3d)(...)`. Releases of the host differ in what else they hand to
# `_conv_forward`, by place or by name (a padding of its own, for example); nothing here asks for it.


@cache
def over_time(conv: type) -> type:
    """`conv`, a Conv3d, for kernels (k, 1, 1): x `[B, C, T, H, W]` -> `[B, C', T, H, W]`.

    As a convolution of frames by pixels. torch's 3D ones are slow on a CPU, and with some releases of cuDNN in half
    precision too (pytorch issues 166122, 166643).
    """

    class ConvOverTime(conv):  # type: ignore[misc, valid-type]
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, *_: object, **__: object) -> Tensor:
            out = F.conv2d(x.flatten(-2), weight.squeeze(-1), bias, self.stride[:2], self.padding[:2])
            return out.unflatten(-1, x.shape[-2:])

    return ConvOverTime


@cache
def of_size_one(conv: type) -> type:
    """`conv`, a Conv1d or Conv2d of size 1, as the Linear that it is: x `[N, C, ...]` -> `[N, C', ...]`.

    Both are views of tokens `[N, ..., C]`, so nothing is copied where x is one.
    """

    class ConvOfSizeOne(conv):  # type: ignore[misc, valid-type]
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, *_: object, **__: object) -> Tensor:
            return linear(x.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)

    return ConvOfSizeOne
