"""The noise schedule with VideoCrafter2's dynamic rescale.

    x_t = sqrt(abar_t) s_t x_0 + sqrt(1 - abar_t) eps        s_t = linspace(1, 0.7, 400), then 0.7

(official `lvdm/models/ddpm3d.py`: `scale_arr`, `q_sample`; betas as in Stable Diffusion, "scaled linear").
"""

from __future__ import annotations

import torch
from torch import Tensor

BETA_START, BETA_END, TIMESTEPS, RESCALE_STEPS = 0.00085, 0.012, 1000, 400


def per_frame(values: Tensor, like: Tensor) -> Tensor:
    """Values `[B]`, or one a frame `[B, T]`, shaped to broadcast over `like`, `[B, C, T, H, W]` (or `[B, ...]`)."""
    return values[:, None, :, None, None] if values.ndim == 2 else values.reshape(-1, *(1,) * (like.ndim - 1))


class NoiseSchedule:
    """What a timestep means: `alphas_cumprod` (abar) and the signal's extra factor `scale` (s), `[1000]` float32 each.

    `scale_end` is s's final value; None means no rescale (s = 1 everywhere: VideoCrafter1 512, T2V-Turbo).
    `scale` overrides it with a checkpoint's own `scale_arr` (1000 or 1400 long; entries 0..999 count).
    """

    def __init__(self, scale_end: float | None = 0.7, *, scale: Tensor | None = None):
        betas = torch.linspace(BETA_START**0.5, BETA_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
        self.betas = betas
        self.alphas_cumprod = torch.cumprod(1 - betas, 0).float()
        if scale is not None:
            if scale.ndim != 1 or len(scale) < TIMESTEPS:
                raise ValueError(
                    f"scale_arr must be one-dimensional with at least {TIMESTEPS} entries, found shape"
                    f" {tuple(scale.shape)}"
                )
            self.scale = scale[:TIMESTEPS].detach().float().cpu().clone()
        elif scale_end is None:
            self.scale = torch.ones(TIMESTEPS)
        else:
            ramp = torch.linspace(1, scale_end, RESCALE_STEPS, dtype=torch.float64)
            self.scale = torch.cat([ramp, ramp.new_full((TIMESTEPS - RESCALE_STEPS,), scale_end)]).float()

    @property
    def rescaled(self) -> bool:
        """Whether s differs from 1 anywhere."""
        return bool((self.scale != 1).any())

    def coefficients(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """(sqrt(abar_t) s_t, sqrt(1 - abar_t)) for integer `t`, `[B]` or `[B, T]`.

        Shaped to broadcast over `like`, `[B, C, T, H, W]`, of its dtype and on its device.
        """
        index = t.cpu().long()
        abar, scale = self.alphas_cumprod[index], self.scale[index]
        signal, noise = abar.sqrt() * scale, (1 - abar).sqrt()
        return per_frame(signal, like).to(like), per_frame(noise, like).to(like)

    def add_noise(self, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """q(x_t | x_0), the rescale included: no one else applies it.

        `x0` and `noise` `[B, C, T, H, W]`, integer `t` `[B]` or `[B, T]` in 0..999.
        """
        signal, sigma = self.coefficients(t, x0)
        return signal * x0 + sigma * noise

    def sigmas(self) -> Tensor:
        """The schedule as a variance-exploding process: sigma'_t = sqrt((1 - abar_t) / abar_t) / s_t, `[1000]`."""
        abar, scale = self.alphas_cumprod.double(), self.scale.double()
        return (((1 - abar) / abar).sqrt() / scale).float()
