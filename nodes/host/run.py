"""A sampler run as the stock custom sampling nodes run one, and what it starts from.

Uses `comfy.samplers.KSAMPLER`, `comfy.sample` and `latent_preview.prepare_callback` (progress and previews); follow
`comfy_extras/nodes_custom_sampler.py`, SamplerCustom, when they change. `comfy.model_management.intermediate_device`:
where nodes keep what they hand on; the CPU without it.
"""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sample
import comfy.samplers
import comfy.utils
import latent_preview
import torch
from torch import Tensor

from .checks import check_latent, check_sampling
from .model import HostModel
from .space import RescaledSampling


def sampling_of(model: comfy.model_patcher.ModelPatcher, asked_by: str) -> RescaledSampling:
    """The model's sampling space.

    Raises ValueError where it is no VideoCrafter model, or where another node replaced its space and so dropped the
    rescale.
    """
    if not isinstance(model.model, HostModel):
        raise ValueError(
            f"{asked_by} needs a VideoCrafter MODEL; found {type(model.model).__name__}. Load it with Load VideoCrafter"
            " Checkpoint"
        )
    return check_sampling(model.get_model_object("model_sampling"), asked_by)


def empty_latent(frames: int, height: int, width: int) -> Tensor:
    """Zeros `[frames, 4, height / 8, width / 8]` on the device where the host's nodes keep latents."""
    return torch.zeros(frames, 4, height // 8, width // 8, device=comfy.model_management.intermediate_device())


def sampler(function, **options) -> comfy.samplers.KSAMPLER:
    """A function of `samplers` as a SAMPLER."""
    return comfy.samplers.KSAMPLER(function, extra_options=options)


def run_sampler(
    model: comfy.model_patcher.ModelPatcher,
    sampler: comfy.samplers.KSAMPLER,
    sigmas: Tensor,
    latent: dict,
    seed: int,
    guidance: float,
    positive: list,
    negative: list,
) -> dict:
    """The new LATENT: noise from the seed, sampled with progress, previews and interrupt."""
    samples = latent["samples"]
    check_latent(samples.shape)
    samples = comfy.sample.sample_custom(
        model,
        comfy.sample.prepare_noise(samples, seed, latent.get("batch_index")),
        guidance,
        sampler,
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=latent.get("noise_mask"),
        callback=latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    return {**latent, "samples": samples}
