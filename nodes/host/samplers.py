"""The model's samplers as k-diffusion functions: what a SAMPLER runs in ComfyUI.

They see `model(x, sigma, **extra_args) -> x0` with frames in the batch, x `[clips * T, 4, h, w]`, in the
variance-exploding space of `host.RescaledSampling`: x~ = x_t / c with c = s sqrt(abar), sigma' = sqrt(1 - abar) / c.
Guidance, windows and previews are the host's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from tqdm.auto import trange

from ...vc2.sampling import fifo, turbo
from ...vc2.sampling.ddim import ddim_sigma
from .windows import clip_length

if TYPE_CHECKING:
    from .model import RescaledSampling
    from .windows import ChosenFrames

DISTILLED = "vc2_distilled"  # the key in transformer_options under which T2V-Turbo's scales reach `VideoUNet.forward`


def step_seed(extra_args: dict) -> int:
    """Its own stream for the noise of the steps: with the initial noise's seed the first step would add the very noise
    that it started from. The generator is the CPU's: one seed, one clip, on any device.
    """
    return (extra_args.get("seed") or 0) + 1 & 0xFFFFFFFFFFFFFFFF


@torch.no_grad()
def sample_ddim(
    model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None, disable=None, eta: float = 1.0
) -> Tensor:
    """DDIM (`vc2.ddim`) in the host's sampling space, as a k-diffusion style sampler function.

    With x~ = x_t / c: x~_p = x0 + (sqrt(1 - abar_p - sigma^2) eps + sigma z) / c_p. It ends at the last sigma's
    timestep; where that is t = 0 the result is x_0 as the official sampler gives it, still with t = 0's noise.
    """
    extra_args = extra_args or {}
    sampling: RescaledSampling = model.inner_model.inner_model.model_sampling
    generator = torch.Generator().manual_seed(step_seed(extra_args))
    levels = sigmas.cpu().double()
    s = sampling.signal_scale(levels).double()
    abar = 1 / (1 + (s * levels) ** 2)
    c = s * abar.sqrt()
    added = ddim_sigma(abar[:-1], abar[1:], eta)
    kept = (1 - abar[1:] - added**2).clamp(min=0).sqrt()
    ones = x.new_ones([x.shape[0]])
    for i in trange(len(sigmas) - 1, disable=disable):
        x0 = model(x, sigmas[i] * ones, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
        if levels[i + 1] == 0:
            x = x0
            continue
        eps = (x - x0) / sigmas[i]
        x = x0 + eps * float(kept[i] / c[i + 1])
        if eta > 0:
            x = x + torch.randn(x.shape, generator=generator).to(x) * float(added[i] / c[i + 1])
    if torch.isclose(levels[-1], sampling.sigma_min.cpu().double(), rtol=1e-4):
        x = x * float(c[-1])  # the official result is x_t at t = 0, not x~
        if (mask := extra_args.get("denoise_mask")) is not None:
            x = x * mask + model.latent_image * (1 - mask)  # what is kept has no noise of t = 0 either
    return x


@torch.no_grad()
def sample_turbo(
    model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict,
    callback=None,
    disable=None,
    steps=4,
    original=200,
    guidance=7.5,
    motion_guidance=0.05,
) -> Tensor:
    """`vc2.turbo` in the host's sampling space. It undoes the space, and with it the rescale, whatever schedule the
    model was loaded with.
    """
    sampling: RescaledSampling = model.inner_model.inner_model.model_sampling
    table, frames = sampling.sigmas.to(x), clip_length(list(model.inner_model.conds.values()), x)
    options = extra_args.get("model_options", {})

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        sigma = table[t[:1]]
        scales = {"guidance": guidance, "motion_guidance": motion_guidance if t[0] >= turbo.MOTION_FROM else 0.0}
        now = {**options, "transformer_options": {**options.get("transformer_options", {}), DISTILLED: scales}}
        x = x_t.transpose(1, 2).flatten(0, 1) / sampling.input_scale(sigma)
        eps = (x - model(x, sigma.expand(len(x)), **{**extra_args, "model_options": now})) / sigma
        return eps.unflatten(0, (-1, frames)).transpose(1, 2)

    with trange(steps, disable=disable) as bar:

        def report(k: int, count: int, denoised: Tensor) -> None:
            bar.update()
            if callback is not None:
                shown = denoised.transpose(1, 2).flatten(0, 1)
                callback({"x": shown, "i": k, "sigma": sigmas[k], "sigma_hat": sigmas[k], "denoised": shown})

        generator = torch.Generator().manual_seed(step_seed(extra_args))

        def step_noise(_: int) -> Tensor:
            return clips(torch.randn(x.shape, generator=generator).to(x))

        def clips(flat: Tensor) -> Tensor:
            return flat.unflatten(0, (-1, frames)).transpose(1, 2)

        z = turbo.sample(denoise, clips(x * sampling.input_scale(sigmas[0])), steps, original, step_noise, report)
    return z.transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def sample_fifo(
    model,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict,
    callback=None,
    disable=None,
    window: int = 16,
    partitions: int = 4,
    eta: float = 1.0,
) -> Tensor:
    """`vc2.fifo` in the host's sampling space: x_t = c x~ with c = s sqrt(abar). For a model from `host.choose_frames`."""
    sampling: RescaledSampling = model.inner_model.inner_model.model_sampling
    handler: ChosenFrames = extra_args["model_options"]["context_handler"]
    table, total = sampling.sigmas.to(x), len(sigmas) - 1
    schedule = sampling.schedule
    gain = (schedule.alphas_cumprod.sqrt() * schedule.scale).to(x)

    def denoise(x_t: Tensor, t: Tensor, frames: Tensor) -> Tensor:
        handler.index = frames
        sigma, c = table[t[0]], gain[t[0]][:, None, None, None]
        x = x_t[0].transpose(0, 1) / c
        eps = (x - model(x, sigma, **extra_args)) / sigma[:, None, None, None]
        return eps.transpose(0, 1)[None]

    with trange(total, disable=disable) as bar:

        def report(k: int, count: int, x0: Tensor) -> None:
            done = (k + 1) * total // count
            bar.update(done - bar.n)
            if callback is not None:
                frames = x0[0].transpose(0, 1)
                callback(
                    {"x": frames, "i": max(0, done - 1), "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": frames}
                )

        x_T = (x * sampling.input_scale(sigmas[0])).transpose(0, 1)[None]
        generator = torch.Generator().manual_seed(step_seed(extra_args))
        z = fifo.sample(denoise, x_T, schedule, window, partitions, eta, generator, report)
    return z[0].transpose(0, 1)
