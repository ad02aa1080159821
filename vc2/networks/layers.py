"""The UNet's layers, each `layer(x, pass_)`. Frames live in the batch, `[B*T, C, H, W]`; temporal layers unfold them.

Parameter names, the spelling `temopral_conv` included, are the official checkpoint's (`lvdm/modules/attention.py`,
`lvdm/modules/networks/openaimodel3d.py`). `operations` is the module that provides Linear, Conv*, GroupNorm and
LayerNorm: torch.nn, or the host's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention
from .clips import Pass, for_each_prompt
from .convolutions import of_size_one, over_time
from .slices import rows_of_a_slice

GROUPS = 32


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """Sinusoids of `t` (any shape, possibly fractional), cosines first -> `[..., dim]` float32.

    The official `timestep_embedding` (`lvdm/models/utils_diffusion.py`).
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def scale_embedding(scale: float | Sequence[float], dim: int) -> Tensor:
    """Sinusoids of a guidance scale, or of one a clip, sines first: `[1, dim]` or `[B, dim]` float32
    (T2V-Turbo's `get_w_embedding`).
    """
    half = dim // 2
    scales = torch.as_tensor(scale, dtype=torch.float32).reshape(-1, 1)
    frequencies = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float32))
    angles = scales * 1000.0 * frequencies
    return torch.cat([angles.sin(), angles.cos()], -1)


def _plus(x: Tensor, change: Tensor) -> Tensor:
    """A residual sum; without gradients x itself changes."""
    return x + change if torch.is_grad_enabled() else x.add_(change)


class SiLU(nn.SiLU):
    """Of what a norm has just computed: without gradients it goes into that memory."""

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=not torch.is_grad_enabled())


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int, operations, **kw):
        super().__init__()
        self.proj = operations.Linear(dim, 2 * inner, **kw)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        if torch.is_grad_enabled():
            return x * F.gelu(gate)
        return F.gelu(gate).mul_(x)  # into what is there already: autograd would need both factors


class FeedForward(nn.Module):
    def __init__(self, dim: int, operations, **kw):
        super().__init__()
        # The identity stands where the official code has a dropout of 0, so that the last Linear is called net.2.
        self.net = nn.Sequential(
            GEGLU(dim, 4 * dim, operations, **kw), nn.Identity(), operations.Linear(4 * dim, dim, **kw)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class TransformerBlock(nn.Module):
    """What the spatial and the temporal block share: two attentions and a feed-forward, each behind a norm.

    Each is added to what came in; without gradients in place, so that what a block is given changes.
    """

    def __init__(self, dim: int, heads: int, head_dim: int, context_dim=None, max_distance=None, *, operations, **kw):
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim, None, max_distance, operations=operations, **kw)
        self.ff = FeedForward(dim, operations, **kw)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, max_distance, operations=operations, **kw)
        self.norm1 = operations.LayerNorm(dim, **kw)
        self.norm2 = operations.LayerNorm(dim, **kw)
        self.norm3 = operations.LayerNorm(dim, **kw)

    def _feed_forward(self, x: Tensor) -> Tensor:
        """The last of the block's residuals, x `[N, L, dim]` -> the same shape. Without gradients a slice of the batch
        goes after the other: at once this would be the largest activation of the network.
        """
        if torch.is_grad_enabled():
            return x + self.ff(self.norm3(x))
        for tokens in x.split(rows_of_a_slice(x, 8)):
            tokens += self.ff(self.norm3(tokens))
        return x


class SpatialBlock(TransformerBlock):
    """The pixels of a frame attend to one another, then to the text."""

    def forward(self, x: Tensor, pass_: Pass, depth: int) -> Tensor:
        """x `[B*T, H*W, dim]` -> the same shape, and once for each prompt. Hooks are told `depth`, the block's number
        in its transformer.
        """
        hooks, context = pass_.hooks, pass_.context
        x = _plus(x, hooks.attention("attn1", depth, self.attn1, self.norm1(x)))
        x = for_each_prompt(hooks.between(x), pass_.frames)
        # One context a clip: all its frames' queries meet the same keys, so they form one long sequence and the keys
        # are computed once.
        long = (len(context), -1, x.shape[-1])
        x = _plus(x, hooks.attention("attn2", depth, self.attn2, self.norm2(x).reshape(long), context).view_as(x))
        return self._feed_forward(x)


class TemporalBlock(TransformerBlock):
    """The frames of a clip attend to one another, twice: it knows no text, so the second attention is to itself too."""

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*H*W, T, dim]` -> the same shape."""
        x = _plus(x, pass_.clips.attend(self.attn1, self.norm1(x)))
        x = _plus(x, pass_.clips.attend(self.attn2, self.norm2(x)))
        return self._feed_forward(x)


class Transformer(nn.Module):
    """What the spatial and the temporal transformer share: a norm, projections in and out, blocks between them.

    The projections are Linears, or (in older checkpoints, and in `init_attn`) convolutions of size 1.
    """

    def __init__(
        self, channels: int, inner: int, use_linear: bool, conv, blocks: Iterable[nn.Module], operations, **kw
    ):
        super().__init__()

        def projection(inputs: int, outputs: int) -> nn.Module:
            if use_linear:
                return operations.Linear(inputs, outputs, **kw)
            return of_size_one(conv)(inputs, outputs, 1, **kw)

        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **kw)
        self.proj_in = projection(channels, inner)
        self.transformer_blocks = nn.ModuleList(blocks)
        self.proj_out = projection(inner, channels)


class SpatialTransformer(Transformer):
    """Attention among the pixels of one frame, and from them to the text."""

    def __init__(
        self, channels: int, heads: int, head_dim: int, depth: int, context_dim: int, use_linear: bool, operations, **kw
    ):
        inner, kw = heads * head_dim, {"operations": operations, **kw}
        blocks = (SpatialBlock(inner, heads, head_dim, context_dim, **kw) for _ in range(depth))
        super().__init__(channels, inner, use_linear, operations.Conv2d, blocks, **kw)

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]` -> the same shape, and once for each prompt."""
        h, w = x.shape[-2:]
        tokens = _project(self.proj_in, rearrange(self.norm(x), "n c h w -> n (h w) c"))
        for depth, block in enumerate(self.transformer_blocks):
            tokens = block(tokens, pass_, depth)
        pass_.hooks.leave_transformer()
        out = rearrange(_project(self.proj_out, tokens), "n (h w) c -> n c h w", h=h, w=w)
        return for_each_prompt(x, len(out)) + out


class TemporalTransformer(Transformer):
    """Attention among the frames of one clip, at each pixel by itself."""

    def __init__(
        self, channels: int, heads: int, head_dim: int, depth: int, use_linear: bool, max_distance, operations, **kw
    ):
        inner, kw = heads * head_dim, {"operations": operations, **kw}
        blocks = (TemporalBlock(inner, heads, head_dim, max_distance=max_distance, **kw) for _ in range(depth))
        super().__init__(channels, inner, use_linear, operations.Conv1d, blocks, **kw)

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]` -> the same shape; the norm's statistics pool over the T frames of a clip."""
        if not pass_.clips.attention:
            return x
        t, (h, w) = pass_.clips.frames, x.shape[-2:]
        tokens = self._tokens(rearrange(x, "(b t) c h w -> b c t h w", t=t))
        for block in self.transformer_blocks:
            tokens = block(tokens, pass_)
        out = rearrange(_project(self.proj_out, tokens), "(b h w) t c -> b t c h w", h=h, w=w)
        return _added(x, out)

    def _tokens(self, video: Tensor) -> Tensor:
        """video `[B, C, T, H, W]`, normed and projected: `[B*H*W, T, inner]`."""
        return _project(self.proj_in, rearrange(self.norm(video), "b c t h w -> (b h w) t c"))


def _project(layer: nn.Module, tokens: Tensor) -> Tensor:
    """A transformer's projection of tokens `[N, L, C]`, which a convolution sees with the channels first."""
    if not isinstance(layer, (nn.Conv1d, nn.Conv2d)):  # a union breaks the graph of torch 2.6
        return layer(tokens)
    x = tokens.transpose(1, 2)
    return layer(x if isinstance(layer, nn.Conv1d) else x[..., None]).flatten(2).transpose(1, 2)


def _added(x: Tensor, video: Tensor) -> Tensor:
    """x `[B*T, C, H, W]` plus a view `[B, T, C, H, W]`, which is not folded as x is: that would copy it first."""
    return (x.unflatten(0, video.shape[:2]) + video).flatten(0, 1)


class TemporalConv(nn.Module):
    """Four GroupNorm, SiLU, (Dropout 0.1), Conv3d(3,1,1) stages added to their input.

    The only layer that knows the order of frames in VideoCrafter2.
    """

    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()

        def stage(*dropout: nn.Module) -> nn.Sequential:
            conv = over_time(operations.Conv3d)(channels, channels, (3, 1, 1), padding=(1, 0, 0), **kw)
            return nn.Sequential(operations.GroupNorm(GROUPS, channels, **kw), SiLU(), *dropout, conv)

        self.conv1 = stage()
        self.conv2, self.conv3, self.conv4 = (stage(nn.Dropout(0.1)) for _ in range(3))

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]` -> the same shape."""
        if not pass_.clips.conv:
            return x
        video = rearrange(x, "(b t) c h w -> b c t h w", t=pass_.clips.frames)
        return _added(x, self.conv4(self.conv3(self.conv2(self.conv1(video)))).transpose(1, 2))


class ResBlock(nn.Module):
    """Residual block that takes in the timestep's embedding.

    The temporal convolution follows it, but inside it: hence that one's parameter names.
    """

    def __init__(self, channels: int, emb_channels: int, out_channels: int, temporal_conv: bool, *, operations, **kw):
        super().__init__()
        norm, conv = operations.GroupNorm, operations.Conv2d
        self.in_layers = nn.Sequential(
            norm(GROUPS, channels, **kw), SiLU(), conv(channels, out_channels, 3, padding=1, **kw)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out_channels, **kw))
        # The identity stands where the official code has a dropout of 0.
        self.out_layers = nn.Sequential(
            norm(GROUPS, out_channels, **kw),
            SiLU(),
            nn.Identity(),
            conv(out_channels, out_channels, 3, padding=1, **kw),
        )
        self.skip_connection = nn.Identity() if channels == out_channels else conv(channels, out_channels, 1, **kw)
        self.temopral_conv = TemporalConv(out_channels, operations=operations, **kw) if temporal_conv else None

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]` -> `[B*T, C', H, W]`."""
        h = self.in_layers(x)
        shift = self.emb_layers(pass_.embedding)
        if pass_.embedding_a_clip:
            shift = shift.repeat_interleave(pass_.clips.frames, 0)
        shift = for_each_prompt(shift, len(h))
        h = _plus(h, shift[..., None, None])
        if torch.is_grad_enabled():
            # In this order, what is computed again for a backward pass ends before the last convolution.
            h = self.skip_connection(x) + self.out_layers(h)
        else:
            h = self.out_layers(h)
            h += self.skip_connection(x)
        return h if self.temopral_conv is None else self.temopral_conv(h, pass_)


class Downsample(nn.Module):
    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **kw)

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]` -> `[B*T, C, ceil(H/2), ceil(W/2)]`."""
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **kw)

    def forward(self, x: Tensor, pass_: Pass) -> Tensor:
        """x `[B*T, C, H, W]`, by nearest neighbour, to the size of the skip that it will meet.

        That is twice its own, or one less where a side was odd.
        """
        return self.conv(F.interpolate(x, size=pass_.skip_size, mode="nearest"))
