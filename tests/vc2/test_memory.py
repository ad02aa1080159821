"""How much memory a step of sampling takes at full size, counted on the network."""

from __future__ import annotations

import pytest
import torch

from bench import counted
from bench.counted import STEPS, Decoding, Step, fused_attention
from vc2.networks.config import UNetConfig
from vc2.networks.slices import SLICE
from vc2.networks.unet import PEAK, VideoUNet

MIB = 2**20


@pytest.mark.parametrize(("step", "most"), [(Step(512, 320), 440 * MIB), (Step(1024, 576), 1560 * MIB)])
def test_peak_of_a_guided_step(step, most):
    """Of 16 frames, prompt and negative prompt in one batch."""
    peak = step.count().peak
    assert peak <= most
    assert 0.8 < peak / (PEAK * step.latent) <= 1


def test_peak_where_prompts_share_nothing():
    """As where one is alone, or where something is plugged in that could tell them apart."""
    step = Step(512, 320, prompts=1)
    assert 0.98 < step.count().peak / (PEAK * step.latent) <= 1


@pytest.mark.parametrize("frames", [16, 32])
def test_the_bound_is_one_for_videocrafter1_too(frames, monkeypatch):
    """Its attention over time is not fused."""
    unet = VideoUNet(UNetConfig.vc1_1024(), device="meta", dtype=torch.bfloat16).eval()
    unet.use_attention(fused_attention, fused_attention)
    monkeypatch.setattr(counted, "_network", lambda: unet)
    step = Step(512, 320, frames, prompts=1)
    assert 0.8 < step.count().peak / (PEAK * step.latent) <= 1


def test_freenoise_takes_no_more_than_all_frames_at_once_do():
    """Its windows are copies."""
    windows = STEPS["guided step, FreeNoise, 64 frames"]
    assert windows.window
    assert windows.frames == 64
    assert 0.8 < windows.count().peak / (PEAK * windows.latent) <= 1


@pytest.mark.parametrize(
    ("step", "slices"),
    [
        (Step(256, 256, prompts=1), 1),
        (Step(256, 256, frames=1), 1),
        (Step(448, 288, prompts=1), 1),
        (Step(1024, 576, frames=1), 1),
        (Step(1920, 1088, frames=1, prompts=1), 2),
    ],
)
def test_small_passes_take_up_to_a_slice_more(step, slices):
    """Or two: nothing of a single large frame is sliced."""
    assert PEAK * step.latent < step.count().peak <= PEAK * step.latent + slices * SLICE


@pytest.mark.parametrize("size", [(512, 320), (256, 256), (64, 64)])
def test_decoding_takes_no_more_than_sampling_at_videocrafters_size(size):
    """On the command line."""
    assert Decoding(*size).count().peak < Step(512, 320).count().peak
