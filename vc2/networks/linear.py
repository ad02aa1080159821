"""Linears by the faster of torch's two libraries for products of matrices on processors with AVX-512.

torch computes those in float32 by MKL, which on AMD's processors keeps to AVX2; oneDNN, which torch ships too and
computes convolutions with, does not. Those in bfloat16 it leaves to oneDNN, but where tokens do not lie one behind
another (a transformer's projection reads channels first) as one product for each row of a batch, with the weights
copied for each: slow where a row has few tokens. `bench/changes.py` times both.
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

Weights = tuple[Tensor, Tensor | None]


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _is_there(dtype: torch.dtype) -> bool:
    """Whether it is worth it, and works. The operation is private to torch, which computes frozen Linears of compiled
    graphs by it.
    """
    fast = platform.machine() in ("x86_64", "AMD64") and torch.backends.cpu.get_cpu_capability() == "AVX512"
    if not fast or not torch.backends.mkldnn.is_available() or not hasattr(torch.library, "custom_op"):
        return False
    one = torch.ones(1, 1, dtype=dtype, device="cpu")
    try:
        return bool(_product(one, one, one[0]) == 2)
    except (AttributeError, RuntimeError, TypeError):
        return False


# Of which it computes products; none where it is not to be used.
DTYPES = tuple(dtype for dtype in (torch.float32, torch.bfloat16) if _is_there(dtype))

if DTYPES:
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
    """`F.linear`: x `[..., C]`, weight `[C', C]` -> `[..., C']`. Forward-mode differentiation sees nothing of it, and
    `torch.backends.mkldnn.flags` does not switch it off.
    """
    mine = _is_plain(x) and _is_plain(weight) and _fit(x, weight, bias) and _pays(x, weight)
    if not mine or _is_recorded():
        return F.linear(x, weight, bias)
    return (_compiled if torch.compiler.is_compiling() else _product)(x, weight, bias)


def _is_plain(t: Tensor) -> bool:
    """Numbers of an ordinary tensor in memory, and not what a subclass stands for."""
    ordinary = type(t) is Tensor or type(t) is nn.Parameter
    return ordinary and t.device.type == "cpu" and t.dtype in DTYPES and t.layout == torch.strided


def _fit(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether sizes and types do, and the bias, of which oneDNN would not look at strides and device."""
    sizes = weight.ndim == 2 and x.ndim > 0 and 0 < weight.shape[1] == x.shape[-1]
    if not sizes or x.dtype != weight.dtype:
        return False
    if bias is None:
        return True
    return _is_plain(bias) and bias.dtype == x.dtype and bias.shape == weight.shape[:1] and bias.is_contiguous()


def _pays(x: Tensor, weight: Tensor) -> bool:
    """In bfloat16, whether laying a row's tokens one behind another is less work than copying weights for it."""
    return x.dtype == torch.float32 or x.is_contiguous() or x.ndim < 2 or x.shape[-2] <= weight.shape[0]


def _is_recorded() -> bool:
    """Whether somebody must see the product: oneDNN's has no gradients, autocasts nothing and is in no old trace."""
    return torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.jit.is_tracing()


def _as_they_are(layer: Any, x: Tensor) -> Weights:
    return layer.weight, layer.bias


@cache
def _by_onednn(kind: type, weights: Callable[[Any, Tensor], Weights | None]) -> type:
    """`kind`, a Linear, computed so with the `weights` that a layer has for an x; where they are None, or there
    is no oneDNN, as `kind` computes it.
    """

    class Linear(kind):  # type: ignore[misc, valid-type]
        def forward(self, x: Tensor) -> Tensor:
            given = weights(self, x) if DTYPES else None
            return super().forward(x) if given is None else linear(x, *given)

    return Linear


class Operations:
    """The layers of `module` (torch.nn, or the host's), with its Linear by oneDNN."""

    def __init__(self, module: Any, weights: Callable[[Any, Tensor], Weights | None] = _as_they_are):
        self.module, self.Linear = module, _by_onednn(module.Linear, weights)

    def __getattr__(self, name: str) -> Any:
        if name == "module":  # not set yet, as while it is copied
            raise AttributeError(name)
        return getattr(self.module, name)


OPERATIONS = Operations(nn)
