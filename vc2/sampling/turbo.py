"""T2V-Turbo's sampler (arXiv 2405.18750): 4 to 16 steps of a consistency model, one pass a step, no dynamic rescale.

    x0       = (x_t - sqrt(1 - abar) eps) / sqrt(abar)
    denoised = c_skip x_t + c_out x0
    x_p      = sqrt(abar_p) denoised + sqrt(1 - abar_p) z

with c_skip = 0.25 / ((10 t)^2 + 0.25), c_out = 10 t / sqrt((10 t)^2 + 0.25); after the last step the result is
`denoised` (official `scheduler/t2v_turbo_scheduler.py`). The schedule is plain because the teacher was distilled so.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .ddim import Denoise
from .schedule import TIMESTEPS, NoiseSchedule

PLAIN = NoiseSchedule(None)
# While t is above this, motion guidance is on (`percentage` 0.3 of the official pipeline).
MOTION_FROM, MOTION_GUIDANCE = 700, 0.05


def turbo_timesteps(steps: int, original: int = 200) -> list[int]:
    """Descending timesteps: every (original // steps)-th of the `original` that the model was distilled on. v2 (and
    v1's paper): 200; v1's release: 50.

    Raises ValueError unless 1 <= steps <= original <= 1000.
    """
    if not 1 <= steps <= original <= TIMESTEPS:
        raise ValueError(
            f"turbo steps must be between 1 and the {original} original steps (at most {TIMESTEPS}), found {steps}"
        )
    distilled = [(k + 1) * (TIMESTEPS // original) - 1 for k in range(original)]
    return distilled[:: -(original // steps)][:steps]


def boundary(t: Tensor) -> tuple[Tensor, Tensor]:
    """(c_skip, c_out) at timesteps `t`, of any shape: a consistency model leaves what has no noise as it is."""
    scaled = 10.0 * t.double()
    return 0.25 / (scaled**2 + 0.25), scaled / (scaled**2 + 0.25).sqrt()


def sample(
    denoise: Denoise,
    x_T: Tensor,
    steps: int = 4,
    original: int = 200,
    step_noise: Callable[[int], Tensor] | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Sample from `x_T` (unit normal, `[B, C, T, H, W]`); the denoised latent, of the same shape. `denoise(x, t)` is
    the network alone, without guidance.

    `step_noise(k)` and `callback(k, count, denoised)` are as in `ddim.sample`.
    """
    timesteps = turbo_timesteps(steps, original)
    abars = PLAIN.alphas_cumprod.double()
    x = denoised = x_T
    for k, t in enumerate(timesteps):
        abar = abars[t]
        eps = denoise(x, torch.full((x.shape[0],), t, device=x.device, dtype=torch.long))
        x0 = (x - float((1 - abar).sqrt()) * eps) / float(abar.sqrt())
        c_skip, c_out = boundary(torch.tensor(t))
        denoised = float(c_skip) * x + float(c_out) * x0
        if k + 1 < len(timesteps):
            abar = abars[timesteps[k + 1]]
            z = step_noise(k) if step_noise else torch.randn_like(x)
            x = float(abar.sqrt()) * denoised + float((1 - abar).sqrt()) * z
        if callback:
            callback(k, len(timesteps), denoised)
    return denoised
