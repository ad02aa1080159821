"""How much memory a step of sampling takes at full size, counted on the network."""

from __future__ import annotations

import pytest
import torch

from bench.counted import count
from vc2.networks.config import UNetConfig
from vc2.networks.unet import PEAK, VideoUNet
from vc2.training.counting import _fused_attention

MIB = 2**20


@pytest.fixture(scope="module")
def unet() -> VideoUNet:
    unet = VideoUNet(UNetConfig(), device="meta", dtype=torch.bfloat16).eval().requires_grad_(False)
    unet.use_attention(_fused_attention, _fused_attention)
    return unet


@pytest.mark.parametrize(("height", "width", "most"), [(320, 512, 760 * MIB), (576, 1024, 3072 * MIB)])
def test_peak_of_a_guided_step(unet, height, width, most):
    """Of 16 frames, prompt and negative prompt in one batch."""
    with torch.no_grad(), torch.device("meta"):
        x = torch.zeros(2, 4, 16, height // 8, width // 8, dtype=torch.bfloat16)
        context, t = torch.zeros(2, 77, 1024, dtype=torch.bfloat16), torch.zeros(2)
        peak = count(lambda: unet(x, t, context, t)).peak
    assert peak <= most
    assert 0.9 < peak / (PEAK * x[:, 0].nbytes) <= 1
