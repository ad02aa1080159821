"""FreeInit: whatever sampler runs, run again, from noise that remembers the clip.

Uses OUTER_SAMPLE wrappers (`comfy.patcher_extension`), whose executor can be called several times: what a run prepares
of the conditions, the next prepares alike. Without them sample in a loop in `run.run_sampler`.
"""

from __future__ import annotations

import comfy.model_patcher
import torch
from comfy.patcher_extension import WrappersMP
from einops import rearrange
from torch import Tensor

from ...vc2.sampling import freeinit
from .model import WINDOW, frames_per_clip
from .progress import tell
from .space import RescaledSampling


def set_free_init(model: comfy.model_patcher.ModelPatcher, iterations: int, spatial: float, temporal: float) -> None:
    """On a clone: sample `iterations` times. The cutoffs are those of `vc2.sampling.freeinit.low_pass`."""

    def sample_again(
        executor, noise: Tensor, latent_image: Tensor, sampler, sigmas: Tensor, mask, callback, quiet, seed, **kwargs
    ):
        guider = executor.class_obj
        _check(guider.model_options, latent_image)
        space: RescaledSampling = guider.model_patcher.get_model_object("model_sampling")
        frames, passes, result = frames_per_clip(guider.conds, len(noise)), 0, noise
        if len(noise) % frames:  # refused in the model's own words
            return executor(noise, latent_image, sampler, sigmas, mask, callback, quiet, seed, **kwargs)

        def sample(x_T: Tensor) -> Tensor:
            nonlocal passes, result
            passes += 1
            tell(f"pass {passes} of {iterations}")
            x = rearrange(x_T, "b c t h w -> (b t) c h w")
            result = executor(x, latent_image, sampler, sigmas, mask, callback, quiet, seed, **kwargs)
            return to_clips(guider.model_patcher.model.process_latent_in(result).to(noise))

        def to_clips(x: Tensor) -> Tensor:
            return rearrange(x, "(b t) c h w -> b c t h w", t=frames)

        def add_noise(x_0: Tensor, eps: Tensor) -> Tensor:
            sigma = sigmas[:1].to(x_0)
            return space.calculate_input(sigma, x_0 + sigma * eps)

        # Not the seed of the first noise, nor of the steps': each would be mixed with itself.
        generator = torch.Generator().manual_seed((seed or 0) + 2 & 0xFFFFFFFFFFFFFFFF)
        freeinit.sample(sample, to_clips(noise), add_noise, iterations, spatial, temporal, generator)
        return result

    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "vc2_free_init", sample_again)


def _check(options: dict, latent_image: Tensor) -> None:
    if WINDOW in options.get("transformer_options", {}) or getattr(options.get("context_handler"), "freenoise", False):
        raise ValueError(
            "FreeInit and FreeNoise each choose the noise that a clip starts from: take one out, or set VideoCrafter"
            " Context Windows to overlap"
        )
    if latent_image.any():
        raise ValueError(
            "FreeInit makes clips from noise: connect Empty VideoCrafter Latent, or take VideoCrafter FreeInit out"
            " where frames are changed"
        )
