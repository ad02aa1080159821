"""Linears by the faster of torch's two libraries for products of matrices in float32 on an x86 processor.

torch computes them by MKL, which on AMD's processors leaves half of the registers idle (AVX2 where there is AVX-512);
oneDNN, which torch ships too and computes convolutions and bfloat16 with, uses them. `bench/changes.py` times it.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Private to torch, which computes frozen Linears of compiled graphs by it; without it, all is as ever.
ONEDNN = (
    platform.machine() in ("x86_64", "AMD64")
    and torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and hasattr(torch.library, "custom_op")  # from torch 2.4
)

Weights = tuple[Tensor, Tensor | None]


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


if ONEDNN:
    # torch.compile takes torch's own operation with constant weights alone. By the module's name, since ComfyUI's
    # process may hold two copies of this module.
    _compiled = torch.library.custom_op(
        f"{re.sub(r'[^0-9A-Za-z_]', '_', __name__)}::product",
        _product,
        mutates_args=(),
        schema="(Tensor x, Tensor weight, Tensor? bias) -> Tensor",
    )
    _compiled.register_fake(lambda x, weight, bias: x.new_empty(*x.shape[:-1], weight.shape[0]))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`: x `[..., C]`, weight `[C', C]` -> `[..., C']`."""
    if ONEDNN and _is_plain(x) and _is_plain(weight) and not _is_recorded():
        return (_compiled if torch.compiler.is_compiling() else _product)(x, weight, bias)
    return F.linear(x, weight, bias)


def _is_plain(t: Tensor) -> bool:
    """Numbers of an ordinary tensor in memory, and not what a subclass stands for."""
    ordinary = type(t) is Tensor or type(t) is nn.Parameter
    return ordinary and t.device.type == "cpu" and t.dtype == torch.float32


def _is_recorded() -> bool:
    """Whether autograd or autocast must see the product: oneDNN's has neither."""
    return torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")


def _as_they_are(layer: Any, x: Tensor) -> Weights:
    return layer.weight, layer.bias


@cache
def by_onednn(kind: type, weights: Callable[[Any, Tensor], Weights | None] = _as_they_are) -> type:
    """`kind`, a Linear, computed so with the `weights` that a layer has for an x; where they are None, as `kind`
    computes it.
    """

    class Linear(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            given = weights(self, x)
            return super().forward(x) if given is None else linear(x, *given)

    return Linear


class Operations:
    """The layers of `module` (torch.nn, or the host's), with its Linear by oneDNN."""

    def __init__(self, module: Any, weights: Callable[[Any, Tensor], Weights | None] = _as_they_are):
        self.Linear = by_onednn(module.Linear, weights)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


OPERATIONS = Operations(nn)
