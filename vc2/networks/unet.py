"""The denoiser: SD 2.1's UNet inflated with temporal attention and temporal convolution (paper section 3.1).

One class serves training and the command line (torch.nn's layers) and ComfyUI, whose operations cast and offload.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from . import attention
from .clips import Clips, Pass, for_each_prompt
from .config import UNetConfig, as_config
from .hooks import NO_HOOKS, Hooks
from .layers import (
    GROUPS,
    Downsample,
    ResBlock,
    SiLU,
    SpatialTransformer,
    TemporalTransformer,
    Upsample,
    scale_embedding,
    timestep_embedding,
)
from .linear import OPERATIONS

# Which temporal layers take part, as `VideoUNet.forward` is told: (attention, convolution).
TEMPORAL = {
    "full": (True, True),
    "identity": (True, False),
    "bypass": (False, False),
    "no attention": (False, True),
}


# Bytes of activations at their most, without gradients and with a fused attention, for each byte of the input of one
# channel: counted on the full network (tests/vc2/test_memory.py). Small inputs take up to a SLICE more, since a slice
# is as large for them.
PEAK = 3410


class Block(nn.Sequential):
    """The layers between two skips, at a `level`: 0 is the latents' own resolution, 1 half of it, and so on."""

    use_checkpoint = False

    def __init__(self, *layers: nn.Module, level: int):
        super().__init__(*layers)
        self.level = level

    @property
    def recomputable(self) -> list[nn.Module]:
        """The layers that checkpointing computes again. Resampling keeps its input and nothing else: there is nothing
        to gain.
        """
        return [layer for layer in self if not isinstance(layer, (Downsample, Upsample))]

    def forward(self, inputs: list[Tensor], pass_: Pass) -> Tensor:  # type: ignore[override]
        """What comes in, side by side as channels, through all layers. The list is emptied: whoever calls would
        otherwise hold the tensors until the last layer is through.
        """
        x = torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0]
        inputs.clear()
        again = self.recomputable if self.use_checkpoint and torch.is_grad_enabled() else []
        for layer in self:
            x = checkpoint(layer, x, pass_, use_reentrant=False) if layer in again else layer(x, pass_)
        return x


class VideoUNet(nn.Module):
    """epsilon(x_t, t, text, fps).

    Parameter names are the official checkpoint's (without `model.diffusion_model.`). Any number of frames and clips and
    any latent size go in; clips never influence one another.
    """

    def __init__(
        self, config: UNetConfig | dict, *, operations=OPERATIONS, dtype: torch.dtype | None = None, device=None
    ):
        super().__init__()
        self.config = c = as_config(UNetConfig, config)
        self.dtype = dtype or torch.get_default_dtype()
        kw = {"operations": operations, "dtype": dtype, "device": device}
        plain = {"dtype": dtype, "device": device}
        width, emb = c.model_channels, 4 * c.model_channels
        head_dim = c.num_head_channels
        max_distance = c.temporal_length if c.use_relative_position else None

        def embedder() -> nn.Sequential:
            return nn.Sequential(
                operations.Linear(width, emb, **plain), nn.SiLU(), operations.Linear(emb, emb, **plain)
            )

        def res(channels: int, out: int) -> ResBlock:
            return ResBlock(channels, emb, out, c.temporal_conv, **kw)

        def transformers(channels: int) -> Iterator[nn.Module]:
            heads = channels // head_dim
            yield SpatialTransformer(channels, heads, head_dim, c.transformer_depth, c.context_dim, c.use_linear, **kw)
            if c.temporal_attention:
                yield TemporalTransformer(channels, heads, head_dim, 1, c.use_linear, max_distance, **kw)

        self.time_embed = embedder()
        if c.fps_cond:
            self.fps_embedding = embedder()
        if c.time_cond_proj_dim:
            self.time_cond_proj = operations.Linear(c.time_cond_proj_dim, width, bias=False, **plain)
        if c.motion_cond_proj_dim:
            self.motion_cond_proj = operations.Linear(c.motion_cond_proj_dim, width, bias=False, **plain)
            self.combine_proj = operations.Linear(2 * width, width, bias=False, **plain)

        self.input_blocks = nn.ModuleList(
            [nn.Sequential(operations.Conv2d(c.in_channels, width, 3, padding=1, **plain))]
        )
        if c.addition_attention:
            # Always 8 heads and convolutional projections, whatever the rest of the network has.
            init_attn = TemporalTransformer(width, 8, head_dim, c.transformer_depth, False, max_distance, **kw)
            self.init_attn = Block(init_attn, level=0)

        channels, factor, skips = width, 1, [width]
        for level, mult in enumerate(c.channel_mult):
            for _ in range(c.num_res_blocks):
                layers: list[nn.Module] = [res(channels, mult * width)]
                channels = mult * width
                if factor in c.attention_resolutions:
                    layers += transformers(channels)
                self.input_blocks.append(Block(*layers, level=level))
                skips.append(channels)
            if level < len(c.channel_mult) - 1:
                self.input_blocks.append(Block(Downsample(channels, **kw), level=level))
                skips.append(channels)
                factor *= 2

        middle = (res(channels, channels), *transformers(channels), res(channels, channels))
        self.middle_block = Block(*middle, level=len(c.channel_mult) - 1)

        self.output_blocks = nn.ModuleList()
        for level, mult in reversed(list(enumerate(c.channel_mult))):
            for i in range(c.num_res_blocks + 1):
                layers = [res(channels + skips.pop(), mult * width)]
                channels = mult * width
                if factor in c.attention_resolutions:
                    layers += transformers(channels)
                if level and i == c.num_res_blocks:
                    layers.append(Upsample(channels, **kw))
                    factor //= 2
                self.output_blocks.append(Block(*layers, level=level))

        self.out = nn.Sequential(
            operations.GroupNorm(GROUPS, channels, **plain),
            SiLU(),
            operations.Conv2d(channels, c.out_channels, 3, padding=1, **plain),
        )
        self.gradient_checkpointing(c.use_checkpoint)

    def gradient_checkpointing(self, where: bool | Collection[int]) -> None:
        """Recompute layers in the backward pass instead of keeping their activations: all, none, or those at some
        levels. Raises ValueError for a level that this network does not have.
        """
        levels = range(len(self.config.channel_mult))
        chosen = (levels if where else ()) if isinstance(where, bool) else where
        if unknown := sorted(set(chosen) - set(levels)):
            raise ValueError(f"this network has levels 0 to {levels[-1]} to checkpoint, found {unknown[0]}")
        for module in self.modules():
            if isinstance(module, Block):
                module.use_checkpoint = module.level in chosen

    def use_attention(self, backend: str | attention.Backend, over_time: str | attention.Backend = "torch") -> None:
        """Compute attention among pixels and to the text with `backend`, and that among frames with `over_time` (see
        `attention.backend`).

        Sixteen frames are a sequence for which torch's kernel is as good as any, and which others are not made for:
        they fill tiles of 128.
        """
        for module in self.modules():
            if isinstance(module, SpatialTransformer | TemporalTransformer):
                chosen = backend if isinstance(module, SpatialTransformer) else over_time
                for layer in module.modules():
                    if isinstance(layer, attention.Attention):
                        layer.backend = attention.backend(chosen)

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        fps: Tensor | None = None,
        *,
        hooks: Hooks | None = None,
        temporal: str = "full",
        window: tuple[int, int] | None = None,
        guidance: float | Sequence[float] | None = None,
        motion_guidance: float | None = None,
    ) -> Tensor:
        """Predict the noise in `x`: epsilon `[B, 4, T, H, W]`.

        x `[B, 4, T, H, W]`, timesteps `[B]` or one a frame `[B, T]`, context `[B, S, D]` or one a frame `[B, T, S, D]`,
        fps `[B]` (the condition, not the playback rate; 16 where it is None, as in the official UNet).

        With P prompts for each clip (context `[P*B, ...]`: of all clips the first, then of all the second, ...) epsilon
        is `[P*B, 4, T, H, W]` in that order; what no text has touched is computed once for all of them.

        `temporal` says which temporal layers take part: "full", all; "identity", the attention alone, and "bypass",
        none (both for single images); "no attention", the convolutions alone (temporal guidance).
        `window`: (length, stride) of FreeNoise's windows of temporal attention, for clips longer than `length`.
        `guidance` (one, or one a clip), `motion_guidance`: the scales that a T2V-Turbo model was distilled with, as
        conditions; motion guidance 0 is not the same as None.

        Raises ValueError for an `x` of another rank, an unknown `temporal` and a context of another width or number.
        """
        if x.ndim != 5:
            raise ValueError(f"x must be [B, C, T, H, W], found shape {tuple(x.shape)}")
        if temporal not in TEMPORAL:
            raise ValueError(f"temporal must be one of {', '.join(TEMPORAL)}, found {temporal!r}")
        if context.shape[-1] != self.config.context_dim:
            raise ValueError(
                f"the text context is {context.shape[-1]} wide but this model takes {self.config.context_dim}; use the"
                " text encoder that belongs to it"
            )
        b, _, t = x.shape[:3]
        hooks = hooks or NO_HOOKS
        if len(context) % b:
            raise ValueError(
                f"there must be one context for each of the {b} clips, or several for each, found {len(context)}"
            )
        prompts = len(context) // b
        if context.ndim == 4:
            context = rearrange(context, "b t s d -> (b t) s d")
        embedding = hooks.embedding(self._embed(timesteps, fps, self._distilled(guidance, motion_guidance, x), x))
        pass_ = Pass(embedding, context.to(x.dtype), Clips(b, t, *TEMPORAL[temporal], window), hooks, prompts * b * t)

        h = rearrange(x, "b c t h w -> (b t) c h w")
        skips = []
        for index, block in enumerate(self.input_blocks):
            hooks.enter("input", index)
            h = block([h], pass_) if index else self._first(h, pass_)
            h, skip = hooks.input(index, h)
            skips.append(skip)
        hooks.enter("middle", 0)
        h = hooks.middle(self.middle_block([h], pass_))
        for index, block in enumerate(self.output_blocks):
            hooks.enter("output", index)
            inputs = [t for t in hooks.output(index, h, for_each_prompt(skips.pop(), len(h))) if t is not None]
            del h  # from here on it is the block's
            h = block(inputs, replace(pass_, skip_size=skips[-1].shape[-2:] if skips else None))
        return rearrange(self.out(h), "(b t) c h w -> b c t h w", t=t)

    def _first(self, x: Tensor, pass_: Pass) -> Tensor:
        """The first convolution, and the temporal attention that comes right after it."""
        h = self.input_blocks[0](x)
        return self.init_attn([h], pass_) if self.config.addition_attention else h

    def _distilled(
        self, guidance: float | Sequence[float] | None, motion_guidance: float | None, x: Tensor
    ) -> Tensor | float:
        """What T2V-Turbo adds to the timestep's sinusoids: `[1, model_channels]`, or `[B, ...]`, or 0."""
        if guidance is None:
            return 0.0
        if not self.config.time_cond_proj_dim:
            raise ValueError(
                "guidance as a condition needs a T2V-Turbo model (time_cond_proj); found " + self.config.family
            )
        out = self.time_cond_proj(scale_embedding(guidance, self.config.time_cond_proj_dim).to(x))
        if motion_guidance is None or not self.config.motion_cond_proj_dim:
            return out
        motion = self.motion_cond_proj(scale_embedding(motion_guidance, self.config.motion_cond_proj_dim).to(x))
        return self.combine_proj(torch.cat([out, motion], 1))

    def _embed(self, timesteps: Tensor, fps: Tensor | None, distilled: Tensor | float, x: Tensor) -> Tensor:
        """`[B, E]`, or `[B*T, E]` where every frame has its own timestep."""
        width = self.config.model_channels
        emb = self.time_embed(timestep_embedding(timesteps, width).to(x.dtype) + distilled)
        if self.config.fps_cond:
            fps = torch.full((x.shape[0],), 16, device=x.device) if fps is None else fps.to(x.device)
            rate = self.fps_embedding(timestep_embedding(fps, width).to(x.dtype))
            emb = emb + (rate[:, None] if emb.ndim == 3 else rate)
        return rearrange(emb, "b t e -> (b t) e") if emb.ndim == 3 else emb
