"""The model's samplers as k-diffusion functions: what a SAMPLER runs in ComfyUI.

They see `model(x, sigma, **extra_args) -> x0` with frames in the batch, x `[clips * T, 4, h, w]`, in the space of
`RescaledSampling`: x~ = x_t / c with c = s sqrt(abar), sigma' = sqrt(1 - abar) / c. Guidance, windows and previews are
the host's.

Nothing of ComfyUI is imported. Relied on is that convention (`comfy/samplers.py`, `KSAMPLER.sample`), that `model` has
the conditions (`inner_model.conds`) and the model object (`inner_model.inner_model`), and that a callback takes x, i,
sigma, sigma_hat and denoised.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from tqdm.auto import trange

from ...vc2.sampling import fifo, turbo
from ...vc2.sampling.ddim import ddim_sigma
from .model import DISTILLED, clip_length
from .progress import tell
from .space import RescaledSampling, per_sample
from .windows import ChosenFrames


def space_of(model) -> RescaledSampling:
    """The sampling space of the model that a sampler is given."""
    return model.inner_model.inner_model.model_sampling


def step_seed(extra_args: dict) -> int:
    """Of the steps' noise: with the initial noise's seed the first step would add the very noise that it started from.

    The generator is the CPU's: one seed, one clip, on any device.
    """
    return (extra_args.get("seed") or 0) + 1 & 0xFFFFFFFFFFFFFFFF


@torch.no_grad()
def sample_ddim(
    model, x: Tensor, sigmas: Tensor, extra_args: dict | None = None, callback=None, disable=None, eta: float = 1.0
) -> Tensor:
    """DDIM (`vc2.sampling.ddim`) in the host's sampling space.

        x~_p = x0 + (sqrt(1 - abar_p - sigma^2) eps + sigma z) / c_p

    It ends at the last sigma's timestep; where that is t = 0 the result is x_0 as the official sampler gives it, still
    with t = 0's noise.
    """
    extra_args = extra_args or {}
    space = space_of(model)
    generator = torch.Generator().manual_seed(step_seed(extra_args))
    levels = sigmas.cpu().double()
    s = space.signal_scale(levels).double()
    abar = 1 / (1 + (s * levels) ** 2)
    c = s * abar.sqrt()
    z_scale = ddim_sigma(abar[:-1], abar[1:], eta)
    eps_scale = (1 - abar[1:] - z_scale**2).clamp(min=0).sqrt()
    ones = x.new_ones([x.shape[0]])
    for i in trange(len(sigmas) - 1, disable=disable):
        x0 = model(x, sigmas[i] * ones, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
        if levels[i + 1] == 0:
            x = x0
            continue
        eps = (x - x0) / sigmas[i]
        x = x0 + eps * float(eps_scale[i] / c[i + 1])
        if eta > 0:
            x = x + torch.randn(x.shape, generator=generator).to(x) * float(z_scale[i] / c[i + 1])
    if torch.isclose(levels[-1], space.sigma_min.cpu().double(), rtol=1e-4):
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
    """`vc2.sampling.turbo` in the host's sampling space.

    It undoes the space, and with it the rescale, whatever schedule the model was loaded with.
    """
    space = space_of(model)
    table, frames = space.sigmas.to(x), clip_length(list(model.inner_model.conds.values()), x)
    options = extra_args.get("model_options", {})
    generator = torch.Generator().manual_seed(step_seed(extra_args))

    def to_clips(x: Tensor) -> Tensor:
        return rearrange(x, "(b t) c h w -> b c t h w", t=frames)

    def to_frames(x: Tensor) -> Tensor:
        return rearrange(x, "b c t h w -> (b t) c h w")

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        sigma = table[t[:1]]
        scales = {"guidance": guidance, "motion_guidance": motion_guidance if t[0] >= turbo.MOTION_FROM else 0.0}
        conditioned = {**options, "transformer_options": {**options.get("transformer_options", {}), DISTILLED: scales}}
        x = to_frames(x_t) / space.input_scale(sigma)
        x0 = model(x, sigma.expand(len(x)), **{**extra_args, "model_options": conditioned})
        return to_clips((x - x0) / sigma)

    def step_noise(_: int) -> Tensor:
        return to_clips(torch.randn(x.shape, generator=generator).to(x))

    with trange(steps, disable=disable) as bar:

        def report(k: int, count: int, denoised: Tensor) -> None:
            bar.update()
            if callback is not None:
                x0 = to_frames(denoised)
                callback({"x": x0, "i": k, "sigma": sigmas[k], "sigma_hat": sigmas[k], "denoised": x0})

        x_T = to_clips(x * space.input_scale(sigmas[0]))
        return to_frames(turbo.sample(denoise, x_T, steps, original, step_noise, report))


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
    """`vc2.sampling.fifo` in the host's sampling space: x_t = c x~. For a model from `windows.choose_frames`."""
    space = space_of(model)
    handler: ChosenFrames = extra_args["model_options"]["context_handler"]
    table, total = space.sigmas.to(x), len(sigmas) - 1
    gain = (space.schedule.alphas_cumprod.sqrt() * space.schedule.scale).to(x)
    generator = torch.Generator().manual_seed(step_seed(extra_args))

    def to_clip(x: Tensor) -> Tensor:
        return rearrange(x, "t c h w -> 1 c t h w")

    def to_frames(x: Tensor) -> Tensor:
        return rearrange(x, "1 c t h w -> t c h w")

    def denoise(x_t: Tensor, t: Tensor, frames: Tensor) -> Tensor:
        handler.index = frames
        sigma = table[t[0]]
        x = to_frames(x_t) / per_sample(gain[t[0]], x_t.ndim - 1)
        x0 = model(x, sigma, **extra_args)
        return to_clip((x - x0) / per_sample(sigma, x.ndim))

    with trange(total, disable=disable) as bar:

        def report(k: int, count: int, denoised: Tensor) -> None:
            done, finished = (k + 1) * total // count, k + 1 - (count - len(x))
            bar.update(done - bar.n)
            if count > total:  # longer than a window
                tell(
                    f"frame {finished} of {len(x)}"
                    if finished > 0
                    else f"before the first frame: {k + 1} of {count - len(x)}"
                )
            if callback is not None:
                x0, i = to_frames(denoised), max(0, done - 1)
                callback({"x": x0, "i": i, "sigma": sigmas[0], "sigma_hat": sigmas[0], "denoised": x0})

        x_T = to_clip(x * space.input_scale(sigmas[0]))
        return to_frames(fifo.sample(denoise, x_T, space.schedule, window, partitions, eta, generator, report))
