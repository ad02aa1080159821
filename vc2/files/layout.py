"""The official checkpoint's layout: the names of its parts, the text tower's tensors, the schedule's buffers."""

from __future__ import annotations

import torch
from torch import Tensor

from ..networks.config import TextConfig
from ..sampling.schedule import TIMESTEPS, NoiseSchedule

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
# In the files but not in the networks: LDM's own EMA copy and training-time leftovers.
IGNORED = (
    "model_ema.",
    "first_stage_model.loss.",
    "cond_stage_model.model.attn_mask",
    "cond_stage_model.model.visual.",
)


def text_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the text tower; written out so that a host without open_clip can check a checkpoint."""
    width = config.width
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (config.vocab_size, width),
        "positional_embedding": (config.context_length, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    linears = {
        "attn.in_proj_": (3 * width, width),
        "attn.out_proj.": (width, width),
        "mlp.c_fc.": (4 * width, width),
        "mlp.c_proj.": (width, 4 * width),
    }
    for i in range(config.layers):
        block = f"transformer.resblocks.{i}."
        for name, shape in linears.items():
            shapes[f"{block}{name}weight"], shapes[f"{block}{name}bias"] = shape, shape[:1]
        for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"):
            shapes[block + name] = (width,)
    return shapes


def schedule_buffers(schedule: NoiseSchedule) -> dict[str, Tensor]:
    """The buffers that the official LatentDiffusion registers, float32, from betas and the rescale."""
    betas = schedule.betas
    abar = torch.cumprod(1 - betas, 0)
    previous = torch.cat([abar.new_ones(1), abar[:-1]])
    variance = betas * (1 - previous) / (1 - abar)
    buffers = {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - abar),
    }
    # The official files carry 1400 entries; those after the first 1000 repeat the last and mean nothing. A plain
    # schedule's are written too (ones): without them the file would be taken for what its family was trained with.
    buffers["scale_arr"] = torch.cat([schedule.scale, schedule.scale[-1:].expand(1400 - TIMESTEPS)])
    return {name: tensor.float() for name, tensor in buffers.items()}


SCHEDULE_BUFFERS = {*schedule_buffers(NoiseSchedule()), "logvar"}  # "logvar": registered, but never used
