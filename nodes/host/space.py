"""The rescaled sampling space: VideoCrafter2's noise schedule as ComfyUI's samplers and schedulers see it.

Uses `comfy.model_sampling.EPS` and `ModelSamplingDiscrete`. Of them only `sigmas`, `log_sigmas`, the conversion between
sigmas and timesteps, `calculate_denoised` and the methods overridden here are relied on; when they go, write these out.
"""

from __future__ import annotations

from collections.abc import Sequence

import comfy.model_sampling
import torch
from torch import Tensor

from ...vc2.sampling.schedule import NoiseSchedule


def per_sample(values: Tensor, ndim: int) -> Tensor:
    """One value, or one a sample, to multiply a batch of `ndim` dimensions with.

    ComfyUI 0.3.64 has no `reshape_sigma`.
    """
    return values.view(()) if values.numel() == 1 else values.view(-1, *(1,) * (ndim - 1))


class RescaledSampling(comfy.model_sampling.EPS, comfy.model_sampling.ModelSamplingDiscrete):
    """Epsilon prediction with the dynamic rescale, as the variance-exploding process that the host's samplers see.

        x~ = x_t / c        c = s sqrt(abar)        sigma' = sqrt(1 - abar) / c

    The model's input is x_t = c x~, where c = s / sqrt(1 + (s sigma')^2).
    """

    def __init__(self, schedule: NoiseSchedule):
        comfy.model_sampling.ModelSamplingDiscrete.__init__(self)
        self.schedule = schedule
        self.set_sigmas(schedule.sigmas())
        self.register_buffer("scale", schedule.scale.clone())

    def sigmas_of(self, timesteps: Sequence[int]) -> Tensor:
        """SIGMAS (on the CPU) of descending `timesteps`, and after them that of t = 0, where official sampling ends."""
        table = self.sigmas.cpu()
        return torch.cat([table[list(timesteps)], table[:1]])

    def signal_scale(self, sigma: Tensor) -> Tensor:
        """s at any sigma', interpolated in log sigma' between the table's timesteps."""
        table = self.log_sigmas.to(sigma.device)
        scale = self.scale.to(sigma.device)
        log_sigma = sigma.float().clamp(min=1e-10).log()
        high = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
        weight = ((log_sigma - table[high - 1]) / (table[high] - table[high - 1])).clamp(0, 1)
        return torch.lerp(scale[high - 1], scale[high], weight)

    def input_scale(self, sigma: Tensor) -> Tensor:
        """c: what x~ is multiplied by to become the model's input x_t."""
        s = self.signal_scale(sigma)
        return s / (1 + (s * sigma.float()) ** 2).sqrt()

    def calculate_input(self, sigma, noise):
        return noise * per_sample(self.input_scale(sigma), noise.ndim)

    def noise_scaling(self, sigma, noise, latent_image, max_denoise=False):
        """Where sampling starts: the latent and `noise` of level sigma'.

        An empty latent means sampling from the prior: unit noise at the model's input, at whatever step one starts.
        """
        sigma = torch.as_tensor(sigma, device=noise.device)
        from_prior = max_denoise or not torch.any(latent_image)
        gain = 1 / self.input_scale(sigma) if from_prior else sigma
        return noise * per_sample(gain, noise.ndim) + latent_image
