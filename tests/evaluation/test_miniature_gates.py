"""What the paper in miniature measures with: the distance, and the gates of its world."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vc2.evaluation.miniature import gates
from vc2.metrics.distances import kernel


def test_the_distance_is_zero_on_average_for_another_draw_and_grows_with_a_shift():
    generator = torch.Generator().manual_seed(0)

    def draw(count: int, shift: float) -> torch.Tensor:
        return torch.randn(count, 16, generator=generator) + shift

    same = [kernel(draw(32, 0), draw(64, 0)) for _ in range(40)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 40**0.5
    shifted = [kernel(draw(32, shift), draw(64, 0)) for shift in (0.3, 0.6, 1.2)]
    assert max(same) < shifted[0] < shifted[1] < shifted[2]


class Blurring(torch.nn.Module):
    """In place of an autoencoder: pictures come back as the means of blocks of so many pixels."""

    def __init__(self, block: int):
        super().__init__()
        self.block = block

    def encode(self, x):
        return torch.cat([torch.nn.functional.avg_pool2d(x, self.block)] * 2, 1)

    def decode(self, z):
        return torch.nn.functional.interpolate(z, scale_factor=self.block)


def test_the_gates_open_for_a_perfect_autoencoder_and_not_for_a_coarse_one(monkeypatch):
    monkeypatch.setattr(gates, "CLIPS", 5)
    perfect, scale = gates.of_the_world(Blurring(1))
    assert [gate.line() for gate in perfect if not gate.passed] == []
    assert scale.defect(scale.low) == pytest.approx(1)
    assert scale.defect(scale.clean) == pytest.approx(0)
    failed = {gate.name for gate in gates.of_the_world(Blurring(8))[0] if not gate.passed}
    assert "watermark behind the autoencoder, of before" in failed
    assert "judge right on colour, shape and direction: low-quality videos behind the autoencoder" in failed
    assert not any(name.startswith(("direction right", "motion error", "object found")) for name in failed)
