"""How much memory a step of sampling takes at full size, counted on the network."""

from __future__ import annotations

import pytest

from bench.counted import guided_step
from vc2.networks.unet import PEAK

MIB = 2**20


@pytest.mark.parametrize(("width", "height", "most"), [(512, 320, 760 * MIB), (1024, 576, 3072 * MIB)])
def test_peak_of_a_guided_step(width, height, most):
    """Of 16 frames, prompt and negative prompt in one batch."""
    peak = guided_step(width, height).peak
    one_channel = 2 * 16 * (height // 8) * (width // 8) * 2
    assert peak <= most
    assert 0.9 < peak / (PEAK * one_channel) <= 1
