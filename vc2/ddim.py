"""DDIM sampling with the dynamic rescale (official `lvdm/models/samplers/ddim.py`).

    x0     = (x_t - sqrt(1 - abar) eps) / (sqrt(abar) s)
    sigma  = eta sqrt((1 - abar_p) / (1 - abar) (1 - abar / abar_p))
    x_p    = sqrt(abar_p) s_p x0 + sqrt(1 - abar_p - sigma^2) eps + sigma z

The subscript p is the next, less noisy timestep. The last one is t = 0 (not "no noise"), and the result is x_p there, as in the official code.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .schedule import TIMESTEPS, NoiseSchedule

Denoise = Callable[[Tensor, Tensor], Tensor]


def ddim_timesteps(steps: int) -> list[int]:
    """Ascending timesteps `range(0, 1000, 1000 // steps) + 1`, clamped to 999.

    The count can exceed the request (30 -> 31, 7 -> 8), as in the official code. Where that code runs off the table (3, 9, 27, 36, 37 and
    everything above 500 would visit t = 1000) the last timestep is 999. Raises ValueError unless 1 <= steps <= 1000.
    """
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps must be between 1 and {TIMESTEPS}, found {steps}")
    visited = (min(t + 1, TIMESTEPS - 1) for t in range(0, TIMESTEPS, TIMESTEPS // steps))
    return sorted(set(visited))


def ddim_sigma(abar: Tensor, abar_prev: Tensor, eta: float) -> Tensor:
    """Standard deviation of the noise added between two timesteps, from the *unscaled* abar."""
    return eta * ((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)).clamp(min=0).sqrt()


def sample(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    steps: int,
    eta: float = 1.0,
    step_noise: Callable[[int], Tensor] | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Sample from `x_T` (unit normal, `[B, C, T, H, W]`) and return the latent at t = 0, of the same shape.

    `denoise(x, t)` gives epsilon with guidance already inside; `t` is `[B]`, integer. `step_noise(k)` gives the k-th step's z (default: fresh
    normal noise). `callback(k, count, x0)` is called after the k-th of `count` steps and may raise to interrupt.
    """
    timesteps = ddim_timesteps(steps)
    abars, scales = schedule.alphas_cumprod.double(), schedule.scale.double()
    x = x_T
    for k, t in enumerate(reversed(timesteps)):
        t_prev = timesteps[-k - 2] if k + 1 < len(timesteps) else 0
        abar, abar_prev, s, s_prev = abars[t], abars[t_prev], scales[t], scales[t_prev]
        sigma = ddim_sigma(abar, abar_prev, eta)

        eps = denoise(x, torch.full((x.shape[0],), t, device=x.device, dtype=torch.long))
        x0 = (x - float((1 - abar).sqrt()) * eps) / float(abar.sqrt() * s)
        x = float(abar_prev.sqrt() * s_prev) * x0 + float((1 - abar_prev - sigma**2).clamp(min=0).sqrt()) * eps
        if eta > 0:
            x = x + float(sigma) * (step_noise(k) if step_noise else torch.randn_like(x))
        if callback:
            callback(k, len(timesteps), x0)
    return x
