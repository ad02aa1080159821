"""T2V-Turbo's timesteps, sampler and conditions."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tests.fixtures import fill_module, relative_rms
from tests.standin import unet_config
from vc2.files import checkpoint
from vc2.networks.layers import scale_embedding
from vc2.networks.unet import VideoUNet
from vc2.sampling import turbo

CONFIG = dataclasses.replace(unet_config("vc2_tiny"), time_cond_proj_dim=256)


def test_timesteps():
    assert turbo.turbo_timesteps(4) == [999, 749, 499, 249]
    assert turbo.turbo_timesteps(4, 50) == [999, 759, 519, 279]
    assert turbo.turbo_timesteps(1) == [999]
    for bad in ((0, 200), (201, 200), (4, 1001)):
        with pytest.raises(ValueError, match="turbo steps"):
            turbo.turbo_timesteps(*bad)


def test_a_perfect_denoiser_is_found_in_one_step_and_in_four():
    truth = torch.linspace(-1, 1, 16).reshape(1, 4, 4, 1, 1)

    def denoise(x, t):
        signal, sigma = turbo.PLAIN.coefficients(t, x)
        return (x - signal * truth) / sigma

    for steps in (1, 4):
        out = turbo.sample(denoise, torch.randn(1, 4, 4, 1, 1), steps)
        assert (out - truth).abs().max() < 1e-3


def test_scale_embedding():
    """Sines first, of 1000 w, at frequencies from 1 down to 1/10000, both included."""
    out = scale_embedding(7.5, 256)[0]
    assert out.shape == (256,)
    torch.testing.assert_close(out[0], torch.tensor(math.sin(7500.0)), atol=1e-3, rtol=0)
    torch.testing.assert_close(out[127], torch.tensor(math.sin(0.75)), atol=1e-4, rtol=0)
    torch.testing.assert_close(out[255], torch.tensor(math.cos(0.75)), atol=1e-4, rtol=0)


@torch.no_grad()
def test_guidance_is_a_condition():
    unet = fill_module(VideoUNet(CONFIG)).eval()
    inputs = torch.randn(1, 4, 4, 4, 4), torch.tensor([500]), torch.randn(1, 7, CONFIG.context_dim), torch.tensor([16])
    plain = unet(*inputs)
    assert relative_rms(unet(*inputs, guidance=7.5), plain) > 1e-3
    torch.nn.init.zeros_(unet.time_cond_proj.weight)
    assert relative_rms(unet(*inputs, guidance=7.5), plain) < 1e-6


@torch.no_grad()
def test_no_motion_guidance_is_not_zero_motion_guidance():
    unet = fill_module(VideoUNet(dataclasses.replace(CONFIG, motion_cond_proj_dim=256))).eval()
    inputs = torch.randn(1, 4, 4, 4, 4), torch.tensor([500]), torch.randn(1, 7, CONFIG.context_dim), torch.tensor([16])
    assert relative_rms(unet(*inputs, guidance=7.5, motion_guidance=0.0), unet(*inputs, guidance=7.5)) > 1e-3


def test_a_plain_model_refuses_guidance_as_a_condition():
    unet = VideoUNet(unet_config("vc2_tiny"))
    with pytest.raises(ValueError, match="needs a T2V-Turbo model"):
        unet(torch.zeros(1, 4, 1, 4, 4), torch.tensor([1]), torch.zeros(1, 7, CONFIG.context_dim), guidance=7.5)


@pytest.mark.parametrize("motion", [None, 256])
def test_v2_files_load(tmp_path, motion):
    """A bare UNet state dict, with one or three tensors more than VideoCrafter2's."""
    config = dataclasses.replace(CONFIG, motion_cond_proj_dim=motion)
    state = VideoUNet(config).state_dict()
    assert len(state) == len(VideoUNet(unet_config("vc2_tiny")).state_dict()) + (3 if motion else 1)
    torch.save(state, tmp_path / "unet.pt")
    loaded = checkpoint.load(tmp_path / "unet.pt")
    assert (loaded.config.time_cond_proj_dim, loaded.config.motion_cond_proj_dim) == (256, motion)
    VideoUNet(loaded.config).load_state_dict(loaded.unet)
    assert not loaded.schedule.rescaled
