"""Timesteps, schedule and sampler where the fixtures do not reach."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.fixtures import noise, relative_rms
from vc2.sampling import ddim
from vc2.sampling.schedule import NoiseSchedule


@given(st.integers(1, 1000))
def test_timesteps_stay_on_the_table(steps):
    found = ddim.ddim_timesteps(steps)
    assert found == sorted(set(found))
    assert found[0] == 1
    assert found[-1] <= 999
    official = [t + 1 for t in range(0, 1000, 1000 // steps)]
    # Else the official code raises IndexError: for 3, 9, 27, 36, 37, 101 to 111, 251 to 333 and above 500 steps.
    if official[-1] < 1000:
        assert found == official


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts(steps):
    with pytest.raises(ValueError, match="between 1 and 1000"):
        ddim.ddim_timesteps(steps)


@given(st.integers(2, 60), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.7, 0.3, None]))
def test_a_perfect_denoiser_finds_the_clip(steps, eta, scale_end):
    """With the true noise of a known x0 as the prediction, sampling ends at x0 noised to t = 0, from any start."""
    schedule = NoiseSchedule(scale_end)
    x0 = noise("x0", (1, 4, 2, 3, 3))

    def denoise(x, t):
        signal, sigma = schedule.coefficients(t, x)
        return (x - signal * x0) / sigma

    out = ddim.sample(denoise, noise("x_T", x0.shape), schedule, steps, eta, lambda k: noise(f"z{k}", x0.shape))
    assert (out - x0).abs().max() < 0.2  # t = 0 keeps noise of standard deviation 0.029


def test_callback_counts_and_may_interrupt():
    seen = []
    ddim.sample(
        lambda x, t: x,
        torch.zeros(1, 4, 1, 2, 2),
        NoiseSchedule(),
        5,
        0.0,
        callback=lambda k, n, x0: seen.append((k, n)),
    )
    assert seen == [(k, 5) for k in range(5)]

    def stop(k, n, x0):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ddim.sample(lambda x, t: x, torch.zeros(1, 4, 1, 2, 2), NoiseSchedule(), 5, 0.0, callback=stop)


def test_one_timestep_a_frame():
    schedule = NoiseSchedule()
    x0, z = noise("x0", (2, 4, 3, 2, 2)), noise("z", (2, 4, 3, 2, 2))
    t = torch.tensor([[0, 500, 999], [10, 10, 10]])
    found = schedule.add_noise(x0, z, t)
    for b, f in itertools.product(range(2), range(3)):
        alone = schedule.add_noise(x0[b, None, :, f], z[b, None, :, f], t[b, f, None])
        assert relative_rms(found[b, None, :, f], alone) < 1e-6


def test_scale_array_of_a_checkpoint():
    long = torch.cat([torch.linspace(1, 0.7, 400), torch.full((1000,), 0.7)])
    assert relative_rms(NoiseSchedule(scale=long).scale, NoiseSchedule(0.7).scale) < 1e-6
    assert not NoiseSchedule(None).rescaled
    assert round(float(NoiseSchedule().sigmas()[-1]), 2) == 20.88
    assert round(float(NoiseSchedule(None).sigmas()[-1]), 2) == 14.61
    with pytest.raises(ValueError, match="1000 entries"):
        NoiseSchedule(scale=torch.ones(10))
