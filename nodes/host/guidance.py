"""Guidance beyond the classifier-free one, as patches of a MODEL (always a clone's).

Uses `set_model_sampler_post_cfg_function` and, for a pass of our own, `comfy.samplers.calc_cond_batch`; without them
wrap the host's `sampling_function`.
"""

from __future__ import annotations

import uuid

import comfy.model_patcher
import comfy.samplers
from einops import rearrange
from torch import Tensor

from .model import TEMPORAL, clip_length
from .space import RescaledSampling, per_sample


def add_temporal_guidance(model: comfy.model_patcher.ModelPatcher, scale: float) -> None:
    """x0 += scale (x0 - x0 without temporal attention), both given the prompt."""

    def guide(args: dict) -> Tensor:
        options = comfy.model_patcher.create_model_options_clone(args["model_options"])
        options["transformer_options"] = {**options.get("transformer_options", {}), TEMPORAL: "no attention"}
        # Caches (EasyCache) keep a pass by its condition's id, and this is not the condition's pass.
        cond = [{**c, "uuid": uuid.uuid5(c["uuid"], TEMPORAL)} for c in args["cond"]]
        (frames_apart,) = comfy.samplers.calc_cond_batch(args["model"], [cond], args["input"], args["sigma"], options)
        return args["denoised"] + scale * (args["cond_denoised"] - frames_apart)

    model.set_model_sampler_post_cfg_function(guide)


def add_guidance_rescale(model: comfy.model_patcher.ModelPatcher, multiplier: float) -> None:
    """Rescaled guidance (Lin et al., arXiv 2305.08891, section 3.4), in velocity, by one factor a clip.

    With z = s x0 the model's input is x_t = a z + b eps with a^2 + b^2 = 1, an ordinary variance-preserving process,
    whose velocity is v = a eps - b z.
    """

    def rescale(args: dict) -> Tensor:
        sampling: RescaledSampling = args["model"].model_sampling
        x = args["input"]
        frames = min(clip_length([args["cond"]], x), x.shape[0])  # FIFO hands in part of a clip
        sigma, s = (per_sample(v, x.ndim) for v in (args["sigma"], sampling.signal_scale(args["sigma"])))
        a = 1 / (1 + (s * sigma) ** 2).sqrt()
        b = s * sigma * a
        x_t = x * s * a

        def velocity(x0: Tensor) -> Tensor:
            return (a * x_t - s * x0) / b  # from x_t = a z + b eps

        def spread(v: Tensor) -> Tensor:
            of_clips = rearrange(v, "(b t) c h w -> b (t c h w)", t=frames).std(1)
            return per_sample(of_clips.repeat_interleave(frames), v.ndim)

        guided, conditional = velocity(args["denoised"]), velocity(args["cond_denoised"])
        factor = multiplier * spread(conditional) / spread(guided) + 1 - multiplier
        return (a * x_t - b * factor * guided) / s

    model.set_model_sampler_post_cfg_function(rescale)
