"""DDIM sampling with the dynamic rescale (official `lvdm/models/samplers/ddim.py`).

    x0     = (x_t - sqrt(1 - abar) eps) / (sqrt(abar) s)
    sigma  = eta sqrt((1 - abar_p) / (1 - abar) (1 - abar / abar_p))
    x_p    = sqrt(abar_p) s_p x0 + sqrt(1 - abar_p - sigma^2) eps + sigma z

The subscript p is the next, less noisy timestep. The last one is t = 0 (not "no noise"), and the result is x_p there,
as in the official code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .schedule import TIMESTEPS, NoiseSchedule, per_frame

Denoise = Callable[[Tensor, Tensor], Tensor]


def ddim_timesteps(steps: int) -> list[int]:
    """Ascending timesteps `range(0, 1000, 1000 // steps) + 1`, clamped to 999.

    The count can exceed the request (30 -> 31, 7 -> 8), as in the official code. Where that code runs off the table (3,
    9, 27, 36, 37 and everything above 500 would visit t = 1000) the last timestep is 999. Raises ValueError unless 1 <=
    steps <= 1000.
    """
    if not 1 <= steps <= TIMESTEPS:
        raise ValueError(f"steps must be between 1 and {TIMESTEPS}, found {steps}")
    visited = (min(t + 1, TIMESTEPS - 1) for t in range(0, TIMESTEPS, TIMESTEPS // steps))
    return sorted(set(visited))


def ddim_sigma(abar: Tensor, abar_prev: Tensor, eta: float) -> Tensor:
    """Standard deviation of the noise added between two timesteps, from the *unscaled* abar."""
    return eta * ((1 - abar_prev) / (1 - abar) * (1 - abar / abar_prev)).clamp(min=0).sqrt()


def step(
    schedule: NoiseSchedule, x: Tensor, eps: Tensor, t: Tensor, t_prev: Tensor, eta: float, z: Tensor | None
) -> tuple[Tensor, Tensor]:
    """One step from `t` to `t_prev` (integers, `[B]` or `[B, T]`): x at `t_prev`, and the x0 that it implies.

    x, eps and the step's noise `z` (or None) are `[B, C, T, H, W]`.
    """
    abar, abar_prev = schedule.alphas_cumprod.double()[t.cpu()], schedule.alphas_cumprod.double()[t_prev.cpu()]
    s, s_prev = schedule.scale.double()[t.cpu()], schedule.scale.double()[t_prev.cpu()]
    sigma = ddim_sigma(abar, abar_prev, eta)

    def over(values: Tensor) -> Tensor:
        return per_frame(values, x).to(x)

    x0 = (x - over((1 - abar).sqrt()) * eps) / over(abar.sqrt() * s)
    x_prev = over(abar_prev.sqrt() * s_prev) * x0 + over((1 - abar_prev - sigma**2).clamp(min=0).sqrt()) * eps
    return (x_prev if z is None else x_prev + over(sigma) * z), x0


def sample(
    denoise: Denoise,
    x_T: Tensor,
    schedule: NoiseSchedule,
    steps: int | Sequence[int],
    eta: float = 1.0,
    step_noise: Callable[[int], Tensor] | None = None,
    callback: Callable[[int, int, Tensor], None] | None = None,
) -> Tensor:
    """Sample from `x_T` (unit normal, `[B, C, T, H, W]`) and return the latent at t = 0, of the same shape.

    `denoise(x, t)` gives epsilon with guidance already inside; `t` is `[B]`, integer. `steps` is a count, or the
    ascending timesteps themselves. `step_noise(k)` gives the k-th step's z (default: fresh normal noise). `callback(k,
    count, x0)` is called after the k-th of `count` steps and may raise to interrupt.
    """
    timesteps = ddim_timesteps(steps) if isinstance(steps, int) else list(steps)
    x = x_T
    for k, t in enumerate(reversed(timesteps)):
        t_prev = timesteps[-k - 2] if k + 1 < len(timesteps) else 0
        now, then = (torch.full((x.shape[0],), value, device=x.device, dtype=torch.long) for value in (t, t_prev))
        z = None if eta == 0 else step_noise(k) if step_noise else torch.randn_like(x)
        x, x0 = step(schedule, x, denoise(x, now), now, then, eta, z)
        if callback:
            callback(k, len(timesteps), x0)
    return x
