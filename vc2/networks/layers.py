"""The UNet's layers. Frames live in the batch, `[B * T, C, H, W]`; only the temporal layers unfold them.

Parameter names, the spelling `temopral_conv` included, are the official checkpoint's (`lvdm/modules/attention.py`,
`lvdm/modules/networks/openaimodel3d.py`). `operations` is the module that provides Linear, Conv*, GroupNorm and
LayerNorm: torch.nn, or the host's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..sampling import windows
from .attention import MAX_BATCH, Attention
from .hooks import NO_HOOKS, Hooks

GROUPS = 32


@dataclass(frozen=True)
class Clips:
    """How the batch of one forward pass divides into clips, and which temporal layers take part in it.

    Training passes single images through with `attention` or `conv` off; see `vc2.training.objective`. `window` is
    (length, stride) of the windows of frames within which temporal attention then happens (FreeNoise); None: among all
    frames.
    """

    count: int
    frames: int
    attention: bool = True
    conv: bool = True
    window: tuple[int, int] | None = None

    def attend(self, attention: Attention, x: Tensor) -> Tensor:
        """Self-attention among frames, x `[N, T, dim]`; windows that do not overlap go in one batch, which takes no
        more memory than all frames do.
        """
        if self.window is None or self.frames <= self.window[0]:
            return attention(x)
        length, stride = self.window
        weight = windows.weights(length).to(x)[:, None]
        out, total = torch.zeros_like(x), x.new_zeros(1, self.frames, 1)
        for starts in windows.disjoint(self.frames, length, stride):

            def seen(t: Tensor, starts: range = starts) -> Tensor:
                """The windows in t `[N, T, dim]`, as a view `[N, len(starts), length, dim]`."""
                return t[:, starts[0] : starts[-1] + length].unfold(1, length, starts.step).transpose(-1, -2)

            part = attention(seen(x).flatten(0, 1))
            seen(out).addcmul_(part.unflatten(0, (len(x), -1)), weight)
            seen(total).add_(weight)
        return out.div_(total)


def timestep_embedding(t: Tensor, dim: int, max_period: float = 10000) -> Tensor:
    """Sinusoidal embedding, cosines first: `t` of any shape, possibly fractional -> `[..., dim]` float32 (official
    `timestep_embedding`).
    """
    half = dim // 2
    frequencies = torch.exp(-math.log(max_period) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[..., None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def scale_embedding(scale: float, dim: int) -> Tensor:
    """A guidance scale's sinusoids, sines first, `[1, dim]` float32 (T2V-Turbo's `get_w_embedding`)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, dtype=torch.float32))
    angles = scale * 1000.0 * frequencies
    return torch.cat([angles.sin(), angles.cos()])[None]


class GEGLU(nn.Module):
    def __init__(self, dim: int, inner: int, operations, **kw):
        super().__init__()
        self.proj = operations.Linear(dim, 2 * inner, **kw)

    def forward(self, x: Tensor) -> Tensor:
        x, gate = self.proj(x).chunk(2, -1)
        return x * F.gelu(gate)


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
    """Self-attention, attention to `context` (or again to itself where there is none), feed-forward."""

    def __init__(
        self,
        dim: int,
        heads: int,
        head_dim: int,
        context_dim: int | None,
        max_distance: int | None,
        *,
        operations,
        **kw,
    ):
        super().__init__()
        self.attn1 = Attention(dim, heads, head_dim, None, max_distance, operations=operations, **kw)
        self.ff = FeedForward(dim, operations, **kw)
        self.attn2 = Attention(dim, heads, head_dim, context_dim, max_distance, operations=operations, **kw)
        self.norm1 = operations.LayerNorm(dim, **kw)
        self.norm2 = operations.LayerNorm(dim, **kw)
        self.norm3 = operations.LayerNorm(dim, **kw)

    def forward(self, x: Tensor, clips: Clips) -> Tensor:
        """In time: x `[N, T, dim]` attends to itself, twice."""
        x = x + clips.attend(self.attn1, self.norm1(x))
        x = x + clips.attend(self.attn2, self.norm2(x))
        return x + self.ff(self.norm3(x))

    def attend_to_text(self, x: Tensor, context: Tensor, hooks: Hooks, depth: int) -> Tensor:
        """In space: x `[B*T, L, dim]`; context `[B*T, S, D]`, or `[B, S, D]`, shared by the T frames of a clip."""
        x = x + hooks.attention("attn1", depth, self.attn1, self.norm1(x))
        x = hooks.between(x)
        # One context a clip: all its frames' queries meet the same keys, so they form one long sequence and the keys
        # are computed once.
        query = self.norm2(x).reshape(context.shape[0], -1, x.shape[-1])
        x = x + hooks.attention("attn2", depth, self.attn2, query, context).view_as(x)
        return x + self.ff(self.norm3(x))


class Transformer(nn.Module):
    """What the spatial and the temporal transformer share: norm, projections, blocks."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_dim: int,
        depth: int,
        context_dim: int | None,
        projection,
        max_distance: int | None,
        *,
        operations,
        **kw,
    ):
        super().__init__()
        inner = heads * head_dim
        self.norm = operations.GroupNorm(GROUPS, channels, eps=1e-6, **kw)
        self.proj_in = projection(channels, inner, **kw)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(inner, heads, head_dim, context_dim, max_distance, operations=operations, **kw)
            for _ in range(depth)
        )
        self.proj_out = projection(inner, channels, **kw)


def _project(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a Linear, or a convolution of size 1 (older checkpoints and `init_attn`), to tokens `[N, L, C]`."""
    extra = cast(Tensor, layer.weight).ndim - 2
    if extra == 0:
        return layer(x)
    x = x.transpose(1, 2)
    x = x.reshape(*x.shape, *(1,) * (extra - 1))
    # In time N is every pixel of every clip; convolutions are made for fewer.
    return torch.cat([layer(part) for part in x.split(MAX_BATCH)]).flatten(2).transpose(1, 2)


class SpatialTransformer(Transformer):
    """Attention among the pixels of one frame, and from them to the text."""

    def __init__(
        self,
        channels: int,
        heads: int,
        head_dim: int,
        depth: int,
        context_dim: int,
        use_linear: bool,
        *,
        operations,
        **kw,
    ):
        projection = operations.Linear if use_linear else _conv1(operations.Conv2d)
        super().__init__(channels, heads, head_dim, depth, context_dim, projection, None, operations=operations, **kw)

    def forward(self, x: Tensor, context: Tensor, hooks: Hooks = NO_HOOKS) -> Tensor:
        """x `[B*T, C, H, W]`, context `[B, S, D]` or `[B*T, S, D]`."""
        tokens = _project(self.proj_in, self.norm(x).flatten(2).transpose(1, 2))
        for depth, block in enumerate(self.transformer_blocks):
            tokens = cast(TransformerBlock, block).attend_to_text(tokens, context, hooks, depth)
        hooks.leave_transformer()
        return x + _project(self.proj_out, tokens).transpose(1, 2).unflatten(2, x.shape[2:])


class TemporalTransformer(Transformer):
    """Attention among the frames of one clip, at each pixel by itself. It knows no text: both attentions are
    self-attention.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_dim: int,
        depth: int,
        use_linear: bool,
        max_distance: int | None,
        *,
        operations,
        **kw,
    ):
        projection = operations.Linear if use_linear else _conv1(operations.Conv1d)
        super().__init__(channels, heads, head_dim, depth, None, projection, max_distance, operations=operations, **kw)

    def forward(self, x: Tensor, clips: Clips) -> Tensor:
        """x `[B*T, C, H, W]`; the norm's statistics pool over the T frames of a clip."""
        if not clips.attention:
            return x
        b, t, (c, h, w) = clips.count, clips.frames, x.shape[1:]
        video = self.norm(x.unflatten(0, (b, t)).transpose(1, 2))  # [B, C, T, H, W]
        tokens = _project(self.proj_in, video.permute(0, 3, 4, 2, 1).reshape(b * h * w, t, c))
        for block in self.transformer_blocks:
            tokens = block(tokens, clips)
        out = _project(self.proj_out, tokens).view(b, h, w, t, c).permute(0, 3, 4, 1, 2)  # [B, T, C, H, W]
        return x + out.reshape(x.shape)


def _conv1(conv):
    return lambda inputs, outputs, **kw: conv(inputs, outputs, kernel_size=1, **kw)


class TemporalConv(nn.Module):
    """Four GroupNorm, SiLU, (Dropout 0.1), Conv3d(3,1,1) stages added to their input. The only layer that knows the
    order of frames in VideoCrafter2.
    """

    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()

        def stage(*dropout: nn.Module) -> nn.Sequential:
            conv = operations.Conv3d(channels, channels, (3, 1, 1), padding=(1, 0, 0), **kw)
            return nn.Sequential(operations.GroupNorm(GROUPS, channels, **kw), nn.SiLU(), *dropout, conv)

        self.conv1 = stage()
        self.conv2, self.conv3, self.conv4 = (stage(nn.Dropout(0.1)) for _ in range(3))

    def forward(self, x: Tensor, clips: Clips) -> Tensor:
        """x `[B*T, C, H, W]` -> the same shape."""
        if not clips.conv:
            return x
        video = x.unflatten(0, (clips.count, clips.frames)).transpose(1, 2)
        out = self.conv4(self.conv3(self.conv2(self.conv1(video))))
        return x + out.transpose(1, 2).reshape(x.shape)


class ResBlock(nn.Module):
    """Residual block that takes the timestep's embedding in, followed (inside, hence its parameter names) by the
    temporal convolution.
    """

    def __init__(self, channels: int, emb_channels: int, out_channels: int, temporal_conv: bool, *, operations, **kw):
        super().__init__()
        self.in_layers = nn.Sequential(
            operations.GroupNorm(GROUPS, channels, **kw),
            nn.SiLU(),
            operations.Conv2d(channels, out_channels, 3, padding=1, **kw),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), operations.Linear(emb_channels, out_channels, **kw))
        # The identity stands where the official code has a dropout of 0.
        self.out_layers = nn.Sequential(
            operations.GroupNorm(GROUPS, out_channels, **kw),
            nn.SiLU(),
            nn.Identity(),
            operations.Conv2d(out_channels, out_channels, 3, padding=1, **kw),
        )
        self.skip_connection = (
            nn.Identity() if channels == out_channels else operations.Conv2d(channels, out_channels, 1, **kw)
        )
        if temporal_conv:
            self.temopral_conv = TemporalConv(out_channels, operations=operations, **kw)

    def forward(self, x: Tensor, emb: Tensor, clips: Clips) -> Tensor:
        """x `[B*T, C, H, W]`; emb `[B, E]` (one timestep a clip) or `[B*T, E]`."""
        h = self.in_layers(x)
        shift = self.emb_layers(emb)
        if shift.shape[0] != h.shape[0]:
            shift = shift.repeat_interleave(clips.frames, 0)
        h = self.skip_connection(x) + self.out_layers(h + shift[..., None, None])
        return self.temopral_conv(h, clips) if hasattr(self, "temopral_conv") else h


class Downsample(nn.Module):
    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()
        self.op = operations.Conv2d(channels, channels, 3, stride=2, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.op(x)


class Upsample(nn.Module):
    def __init__(self, channels: int, *, operations, **kw):
        super().__init__()
        self.conv = operations.Conv2d(channels, channels, 3, padding=1, **kw)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Nearest-neighbour to `size` (H, W): that of the skip it will meet, twice its own or one less where a side was
        odd.
        """
        return self.conv(F.interpolate(x, size=size, mode="nearest"))
