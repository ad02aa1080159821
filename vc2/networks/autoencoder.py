"""The image autoencoder (kl-f8, `first_stage_model.*`): frames in, latents out, each frame by itself.

Parameter names follow the official `lvdm/modules/networks/ae_modules.py`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .config import AutoencoderConfig, as_config

SCALE_FACTOR = 0.18215  # latents are multiplied by it before the UNet sees them (official config, `scale_factor`)


def _norm(channels: int, **kw) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6, **kw)


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, dropout: float, **kw):
        super().__init__()
        self.norm1 = _norm(channels, **kw)
        self.conv1 = nn.Conv2d(channels, out_channels, 3, padding=1, **kw)
        self.norm2 = _norm(out_channels, **kw)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, **kw)
        self.nin_shortcut = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return h + self.nin_shortcut(x)


class AttentionBlock(nn.Module):
    """Single-head attention among the pixels of a frame."""

    def __init__(self, channels: int, **kw):
        super().__init__()
        self.norm = _norm(channels, **kw)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1, **kw) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # Contiguous, or no fused kernel takes them and all HW x HW weights are held.
        q, k, v = (rearrange(f(h), "n c h w -> n 1 (h w) c").contiguous() for f in (self.q, self.k, self.v))
        h = F.scaled_dot_product_attention(q, k, v)
        return x + self.proj_out(rearrange(h, "n 1 (h w) c -> n c h w", h=x.shape[2]))


class Downsample(nn.Module):
    def __init__(self, channels: int, **kw):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(
            F.pad(x, (0, 1, 0, 1))
        )  # padding on the right and at the bottom only, as in the official encoder


class Upsample(nn.Module):
    def __init__(self, channels: int, **kw):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Middle(nn.Module):
    def __init__(self, channels: int, dropout: float, **kw):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels, dropout, **kw)
        self.attn_1 = AttentionBlock(channels, **kw)
        self.block_2 = ResnetBlock(channels, channels, dropout, **kw)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Level(nn.Module):
    """Residual blocks at one resolution, then the way to the next: `downsample` or `upsample`, set by who builds it."""

    def __init__(self, channels: int, out_channels: int, blocks: int, dropout: float, **kw):
        super().__init__()
        self.block = nn.ModuleList(
            ResnetBlock(channels if i == 0 else out_channels, out_channels, dropout, **kw) for i in range(blocks)
        )
        self.downsample: nn.Module = nn.Identity()
        self.upsample: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return self.upsample(self.downsample(x))


class Encoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, **kw):
        super().__init__()
        widths = [config.ch, *(config.ch * m for m in config.ch_mult)]
        self.conv_in = nn.Conv2d(config.in_channels, config.ch, 3, padding=1, **kw)
        self.down = nn.ModuleList(Level(a, b, config.num_res_blocks, config.dropout, **kw) for a, b in pairwise(widths))
        for level, width in zip(self.down[:-1], widths[1:], strict=False):
            level.downsample = Downsample(width, **kw)
        self.mid = Middle(widths[-1], config.dropout, **kw)
        self.norm_out = _norm(widths[-1], **kw)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.z_channels, 3, padding=1, **kw)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config: AutoencoderConfig, **kw):
        super().__init__()
        widths = [config.ch * m for m in config.ch_mult]
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1, **kw)
        self.mid = Middle(widths[-1], config.dropout, **kw)
        inputs = [*widths[1:], widths[-1]]  # level i receives what the level above it, i + 1, put out
        self.up = nn.ModuleList(
            Level(a, b, config.num_res_blocks + 1, config.dropout, **kw) for a, b in zip(inputs, widths, strict=True)
        )
        for level, width in zip(self.up[1:], widths[1:], strict=True):
            level.upsample = Upsample(width, **kw)
        self.norm_out = _norm(widths[0], **kw)
        self.conv_out = nn.Conv2d(widths[0], config.out_ch, 3, padding=1, **kw)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class AutoencoderKL(nn.Module):
    """kl-f8. `encode` gives the posterior's moments; the latent that the UNet sees is SCALE_FACTOR times a sample of it
    (or its mean).
    """

    def __init__(
        self, config: AutoencoderConfig | dict | None = None, *, dtype: torch.dtype | None = None, device=None
    ):
        super().__init__()
        self.config = c = as_config(AutoencoderConfig, config)
        kw = {"dtype": dtype, "device": device}
        self.encoder = Encoder(c, **kw)
        self.decoder = Decoder(c, **kw)
        self.quant_conv = nn.Conv2d(2 * c.z_channels, 2 * c.embed_dim, 1, **kw)
        self.post_quant_conv = nn.Conv2d(c.embed_dim, c.z_channels, 1, **kw)

    def encode(self, x: Tensor) -> Tensor:
        """Frames `[N, 3, H, W]` in -1..1, H and W divisible by 8 -> moments `[N, 8, H/8, W/8]` (mean, log variance),
        unscaled.
        """
        factor = self.config.downsampling
        if x.shape[-1] % factor or x.shape[-2] % factor:
            raise ValueError(
                f"frame size must be divisible by {factor}, found {x.shape[-1]}x{x.shape[-2]} (width x height)"
            )
        return self.quant_conv(self.encoder(x))

    def decode(self, z: Tensor) -> Tensor:
        """Unscaled latents `[N, 4, h, w]` -> frames `[N, 3, 8h, 8w]`, about -1..1, not clamped."""
        return self.decoder(self.post_quant_conv(z))
