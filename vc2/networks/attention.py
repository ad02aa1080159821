"""Attention: one function, and a backend that can be exchanged.

A backend computes softmax(q k^T / sqrt(d)) v for q `[N, L, heads * d]`, k and v `[N, S, heads * d]` and returns `[N, L,
heads * d]`. torch's own is the default; `VideoUNet.use_attention("xformers")`, or any callable of the same signature,
replaces it (the host brings its own).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .slices import rows_of_a_slice

Backend = Callable[[Tensor, Tensor, Tensor, int], Tensor]

# Temporal attention's batch is every pixel of every clip. CUDA's fused kernels put it in a 16-bit grid dimension, and
# flash attention's backward pass takes a float32 tile of 128 queries for each, however short the clip.
MAX_BATCH = 2**13


def torch_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """torch's scaled dot product attention."""
    q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=heads) for t in (q, k, v))
    attend = _in_float32 if q.device.type == "cpu" and q.requires_grad else F.scaled_dot_product_attention
    return rearrange(attend(q, k, v), "n h l d -> n l (h d)")


def _in_float32(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """On a CPU, torch's backward pass takes five times as long in bfloat16 (measured with torch 2.11)."""
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float()).to(q.dtype)


def xformers_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """xformers' memory-efficient attention."""
    from xformers.ops import memory_efficient_attention

    q, k, v = (rearrange(t, "n l (h d) -> n l h d", h=heads) for t in (q, k, v))
    return rearrange(memory_efficient_attention(q, k, v), "n l h d -> n l (h d)")


XFORMERS_INSTALLED = importlib.util.find_spec("xformers") is not None


def auto_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """xformers where it is installed and the tensors are on a CUDA device, else torch."""
    return (xformers_attention if XFORMERS_INSTALLED and q.is_cuda else torch_attention)(q, k, v, heads)


BACKENDS: dict[str, Backend] = {"auto": auto_attention, "torch": torch_attention, "xformers": xformers_attention}


def backend(choice: str | Backend = "auto") -> Backend:
    """The backend called `choice`: "auto", "torch", "xformers", or a callable, returned as it is.

    Raises ValueError for another name and ModuleNotFoundError for xformers where it is missing.
    """
    if callable(choice):
        return choice
    if choice not in BACKENDS:
        raise ValueError(f"unknown attention backend {choice!r}; expected one of {', '.join(BACKENDS)} or a callable")
    if choice == "xformers" and not XFORMERS_INSTALLED:
        raise ModuleNotFoundError(
            "attention backend 'xformers' was asked for but xformers is not installed; use 'torch' or install it"
        )
    return BACKENDS[choice]


class RelativePosition(nn.Module):
    """VideoCrafter1's table of vectors for the distances -m..m between frames, `[2m + 1, d]`."""

    def __init__(self, dim: int, max_distance: int, dtype=None, device=None):
        super().__init__()
        self.max_distance = max_distance
        self.embeddings_table = nn.Parameter(torch.empty(2 * max_distance + 1, dim, dtype=dtype, device=device))
        if self.embeddings_table.dtype.itemsize > 1:  # 8-bit floats cannot be drawn, only loaded
            nn.init.xavier_uniform_(self.embeddings_table)

    def forward(self, length: int, like: Tensor) -> Tensor:
        """`[length, length, d]` on `like`'s device and dtype.

        Entry (i, j) belongs to the distance j - i, clamped to the table.
        """
        index = torch.arange(length, device=like.device)
        distance = (index[None, :] - index[:, None]).clamp(-self.max_distance, self.max_distance)
        return self.embeddings_table.to(like)[distance + self.max_distance]


class Attention(nn.Module):
    """Multi-head attention with the official parameter names; self-attention where no context is given.

    With `max_distance` (VideoCrafter1's temporal attention) relative positions are added to the logits and to the
    values, which no fused kernel offers, so the backend is not asked.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        context_dim: int | None = None,
        max_distance: int | None = None,
        *,
        operations=nn,
        dtype=None,
        device=None,
    ):
        super().__init__()
        kw = {"dtype": dtype, "device": device}
        inner = heads * head_dim
        self.heads, self.head_dim = heads, head_dim
        self.backend: Backend = torch_attention
        self.to_q = operations.Linear(dim, inner, bias=False, **kw)
        self.to_k = operations.Linear(context_dim or dim, inner, bias=False, **kw)
        self.to_v = operations.Linear(context_dim or dim, inner, bias=False, **kw)
        self.to_out = nn.Sequential(operations.Linear(inner, dim, **kw))
        self.relative = max_distance is not None
        if max_distance is not None:
            self.relative_position_k = RelativePosition(head_dim, max_distance, **kw)
            self.relative_position_v = RelativePosition(head_dim, max_distance, **kw)

    def forward(self, x: Tensor, context: Tensor | None = None, value: Tensor | None = None) -> Tensor:
        """x `[N, L, dim]`, context `[N, S, context_dim]` -> `[N, L, dim]`.

        `value` replaces the context where values are computed.
        """
        context = x if context is None else context
        value = context if value is None else value
        if context.shape[1] == 1 and not self.relative:
            # A softmax over one key is 1, whatever q and k: a single image in time. Kernels would compute whole tiles
            # to find that out.
            return self.to_out(self.to_v(value).expand(-1, x.shape[1], -1))
        rows = MAX_BATCH
        if self.relative and not torch.is_grad_enabled():  # unfused, it would be the largest activation of the network
            rows = min(rows, rows_of_a_slice(x, 8))
        chunks = zip(x.split(rows), context.split(rows), value.split(rows), strict=True)
        out = [self.to_out(self._attended(*chunk)) for chunk in chunks]
        return out[0] if len(out) == 1 else torch.cat(out)

    def _attended(self, x: Tensor, context: Tensor, value: Tensor) -> Tensor:
        """Of every head its values: `[N, L, inner]`. Its own queries, keys and values are gone when it returns."""
        attend = self._relative_attention if self.relative else self.backend
        return attend(self.to_q(x), self.to_k(context), self.to_v(value), self.heads)

    def _relative_attention(self, q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
        q, k, v = (rearrange(t, "n l (h d) -> n h l d", h=heads) for t in (q, k, v))
        length, q = q.shape[2], q * q.shape[3] ** -0.5
        logits = q @ k.transpose(-1, -2) + torch.einsum("nhld,lsd->nhls", q, self.relative_position_k(length, q))
        weights = logits.softmax(-1)
        out = weights @ v + torch.einsum("nhls,lsd->nhld", weights, self.relative_position_v(length, v))
        return rearrange(out, "n h l d -> n l (h d)")
