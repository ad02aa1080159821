"""Convolutions by Winograd's minimal filtering (Lavin and Gray 2016, "Fast Algorithms for Convolutional Neural
Networks"): four outputs of a kernel of three from six products instead of twelve, and 4x4 of a kernel of 3x3 from 36
instead of 144.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# F(4, 3) with the points 0, 1, -1, 2, -2 and infinity.
INPUT = torch.tensor(
    [
        [4.0, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
KERNEL = torch.tensor([[6.0, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]]) / 24
OUTPUT = torch.tensor([[1.0, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]])


def over_time(x: Tensor, weight: Tensor) -> Tensor:
    """x `[B, C, T, N]`, T a multiple of 4, weight `[C', C, 3]` -> `[B, C', T, N]`."""
    b, c, t, n = x.shape
    tiles = F.pad(x, (0, 0, 1, 1)).unfold(2, 6, 4).permute(4, 1, 0, 2, 3).reshape(6, -1)
    kernels = (KERNEL @ weight.permute(2, 0, 1).reshape(3, -1)).unflatten(1, weight.shape[:2])
    products = kernels @ (INPUT @ tiles).unflatten(1, (c, -1))
    return (OUTPUT @ products.flatten(1)).view(4, -1, b, t // 4, n).permute(2, 1, 3, 0, 4).reshape(b, -1, t, n)


def of_pixels(x: Tensor, weight: Tensor) -> Tensor:
    """x `[N, C, H, W]`, H and W multiples of 4, weight `[C', C, 3, 3]` -> `[N, C', H, W]`."""
    n, c, h, w = x.shape
    twice = [torch.kron(matrix, matrix) for matrix in (KERNEL, INPUT, OUTPUT)]
    tiles = F.pad(x, (1, 1, 1, 1)).unfold(2, 6, 4).unfold(3, 6, 4).permute(4, 5, 1, 0, 2, 3).reshape(36, -1)
    kernels = (twice[0] @ weight.permute(2, 3, 0, 1).reshape(9, -1)).unflatten(1, weight.shape[:2])
    products = kernels @ (twice[1] @ tiles).unflatten(1, (c, -1))
    out = (twice[2] @ products.flatten(1)).view(4, 4, -1, n, h // 4, w // 4)
    return out.permute(3, 2, 4, 0, 5, 1).reshape(n, -1, h, w)


def by_winograd(conv: type) -> type:
    """`conv`, which gives x its size back, by the functions above where its tiles fit."""

    class Winograd(conv):  # type: ignore[misc, valid-type]
        def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: object) -> Tensor:
            if self.kernel_size == (3, 1, 1) and x.shape[2] % 4 == 0:
                out = over_time(x.flatten(-2), weight[..., 0, 0]).unflatten(-1, x.shape[-2:])
            elif self.kernel_size == (3, 3) and self.stride == (1, 1) and not any(size % 4 for size in x.shape[-2:]):
                out = of_pixels(x, weight)
            else:
                return super()._conv_forward(x, weight, bias, *rest)
            return out if bias is None else out.add_(bias.view(-1, *[1] * (out.ndim - 2)))

    return Winograd
