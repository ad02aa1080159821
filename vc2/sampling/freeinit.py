"""FreeInit (arXiv 2312.07537, section 4): sample again, from noise that remembers what was sampled.

    x_T' = sqrt(abar_T) s_T x_0 + sqrt(1 - abar_T) eps
    x_T  <- IFFT( FFT(x_T') L + FFT(z) (1 - L) )

The clip's own low frequencies, in space and time, stay in the noise that the next pass starts from, and with them what
is where; the high ones are fresh. eps is the noise of the first pass, z is new in each, and L is a low-pass filter. In
training the noise of the last timestep still holds some of the clip; without this, noise in sampling never does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

ORDER, CUTOFF = 4, 0.25  # of the official code's Butterworth filter


def low_pass(size: Sequence[int], spatial: float = CUTOFF, temporal: float = CUTOFF, order: int = ORDER) -> Tensor:
    """L, `[T, H, W]` for `size`, at the frequencies of `torch.fft.fftn`.

    It is 1 at frequency 0 and a half at the cutoffs, which are shares of the highest frequency.
    """
    cutoffs = (temporal, spatial, spatial)
    frequencies = [2 * torch.fft.fftfreq(n) / cutoff for n, cutoff in zip(size, cutoffs, strict=True)]
    t, y, x = torch.meshgrid(*frequencies, indexing="ij")
    return 1 / (1 + (t**2 + y**2 + x**2) ** order)


def mix(low: Tensor, high: Tensor, filter: Tensor) -> Tensor:
    """The low frequencies of `low` and the high ones of `high`, `[..., T, H, W]` both; `filter` is a `low_pass`."""
    dims, filter = (-3, -2, -1), filter.to(low.device)
    spectrum = torch.fft.fftn(low.float(), dim=dims) * filter + torch.fft.fftn(high.float(), dim=dims) * (1 - filter)
    return torch.fft.ifftn(spectrum, dim=dims).real.to(low.dtype)


def sample(
    sample: Callable[[Tensor], Tensor],
    x_T: Tensor,
    add_noise: Callable[[Tensor, Tensor], Tensor],
    iterations: int,
    spatial: float = CUTOFF,
    temporal: float = CUTOFF,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`sample(x_T)` -> x_0, `iterations` times, the later ones from noise that remembers; 1 is `sample` alone.

    x_T (unit normal) and x_0 are `[B, C, T, H, W]`; `add_noise(x_0, eps)` takes a clip to the level that sampling
    starts at. z comes from `generator` (CPU). Raises ValueError for less than one iteration.
    """
    if iterations < 1:
        raise ValueError(f"FreeInit: iterations must be at least 1, found {iterations}")
    filter = low_pass(x_T.shape[2:], spatial, temporal)
    x_0 = sample(x_T)
    for _ in range(iterations - 1):
        z = torch.randn(x_T.shape, generator=generator).to(x_T)
        x_0 = sample(mix(add_noise(x_0, x_T), z, filter))
    return x_0
