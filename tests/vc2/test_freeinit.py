"""FreeInit: its filter, what it mixes, and what it hands to the sampler in each pass."""

from __future__ import annotations

import pytest
import torch

from vc2.sampling import ddim, freeinit
from vc2.sampling.schedule import NoiseSchedule


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_filter_is_the_official_one():
    """On even sizes; official code writes it around the middle, by index: 2 i / n - 1."""
    t_n, h, w, spatial, temporal = 4, 8, 6, 0.3, 0.5
    expected = torch.zeros(t_n, h, w)
    for t in range(t_n):
        for y in range(h):
            for x in range(w):
                squares = (spatial / temporal * (2 * t / t_n - 1)) ** 2 + (2 * y / h - 1) ** 2 + (2 * x / w - 1) ** 2
                expected[t, y, x] = 1 / (1 + (squares / spatial**2) ** 4)
    found = torch.fft.fftshift(freeinit.low_pass((t_n, h, w), spatial, temporal))
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("size", [(16, 8, 8), (1, 8, 8), (5, 7, 9)])
def test_the_filter_keeps_the_mean_and_halves_at_the_cutoff(size):
    filter = freeinit.low_pass(size)
    assert filter[0, 0, 0] == 1
    assert filter.min() >= 0
    assert freeinit.low_pass((16, 8, 8))[2, 0, 0] == pytest.approx(0.5)  # 2 of 8 is a quarter of the highest


def test_mixing_is_a_choice_by_frequency():
    """One wave below the cutoffs and one above, in time and in space."""
    frames, side = torch.arange(16.0)[:, None, None], torch.arange(32.0)
    slow = torch.cos(2 * torch.pi * frames / 16).expand(16, 32, 32) + torch.cos(2 * torch.pi * side / 32)
    fast = torch.cos(2 * torch.pi * 7 * frames / 16).expand(16, 32, 32) + torch.cos(2 * torch.pi * 14 * side / 32)
    clip = (slow + fast)[None, None]
    filter = freeinit.low_pass((16, 32, 32))
    zeros = torch.zeros_like(clip)
    assert torch.allclose(freeinit.mix(clip, zeros, filter)[0, 0], slow, atol=0.02)
    assert torch.allclose(freeinit.mix(zeros, clip, filter)[0, 0], fast, atol=0.02)
    assert torch.allclose(freeinit.mix(clip, clip, filter), clip, atol=1e-5)


def test_clips_and_channels_do_not_mix():
    a, b = randn(2, 4, 8, 6, 6), randn(2, 4, 8, 6, 6, seed=1)
    filter = freeinit.low_pass(a.shape[2:])
    together = freeinit.mix(a, b, filter)
    alone = freeinit.mix(a[1:, 2:3], b[1:, 2:3], filter)
    assert torch.allclose(together[1:, 2:3], alone, atol=1e-6)


def test_one_iteration_is_none():
    x_T = randn(1, 4, 4, 8, 8)
    seen = []

    def sample(x):
        seen.append(x)
        return x * 2

    assert torch.equal(freeinit.sample(sample, x_T, lambda x, eps: x + eps, 1), x_T * 2)
    assert len(seen) == 1
    assert seen[0] is x_T


def test_later_passes_start_from_what_was_sampled():
    """With the first pass's noise for the low frequencies, and new noise in every pass for the high ones."""
    schedule, T = NoiseSchedule(), torch.tensor([999])
    x_T, generator = randn(1, 4, 8, 8, 8), torch.Generator().manual_seed(5)
    starts, ends = [], []

    def sample(x):
        starts.append(x)
        ends.append(torch.tanh(x) + len(ends))
        return ends[-1]

    found = freeinit.sample(sample, x_T, lambda x, eps: schedule.add_noise(x, eps, T), 3, generator=generator)
    assert found is ends[2]
    generator, filter = torch.Generator().manual_seed(5), freeinit.low_pass((8, 8, 8))
    for x_0, start in zip(ends[:2], starts[1:], strict=True):
        fresh = torch.randn(x_T.shape, generator=generator)
        assert torch.allclose(start, freeinit.mix(schedule.add_noise(x_0, x_T, T), fresh, filter), atol=1e-5)


def test_noise_that_remembers_keeps_a_samplers_clip():
    """For a network that knows one clip: whatever the noise, the passes agree, and stay unit normal in between."""
    schedule, clip = NoiseSchedule(), randn(1, 4, 8, 8, 8, seed=3)

    def denoise(x, t):
        signal, noise = schedule.coefficients(t, x)
        return (x - signal * clip) / noise

    starts = []

    def sample(x):
        starts.append(x)
        return ddim.sample(denoise, x, schedule, 5, 0.0)

    found = freeinit.sample(
        sample, randn(1, 4, 8, 8, 8), lambda x, eps: schedule.add_noise(x, eps, torch.tensor([999])), 3
    )
    assert torch.allclose(found, clip, atol=0.15)  # still with the noise of t = 0
    assert all(0.9 < float(start.std()) < 1.1 for start in starts)


def test_no_iteration_is_refused():
    with pytest.raises(ValueError, match="iterations must be at least 1, found 0"):
        freeinit.sample(lambda x: x, randn(1, 4, 4, 8, 8), lambda x, eps: x, 0)
