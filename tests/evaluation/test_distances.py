"""Distances of feature sets against their closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from vc2.metrics import distances


def normal(mean: np.ndarray, deviation: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Samples whose mean and covariance are exactly these."""
    x = np.random.default_rng(seed).normal(size=(count, len(mean)))
    x -= x.mean(0)
    root = np.linalg.cholesky(np.cov(x, rowvar=False))
    return x @ np.linalg.inv(root).T * deviation + mean


def test_frechet_of_normal_distributions():
    """With diagonal covariances it is |mu_a - mu_b|^2 + sum (sigma_a - sigma_b)^2."""
    mean_a, mean_b = np.array([0.0, 1, 2]), np.array([1.0, 1, 0])
    sd_a, sd_b = np.array([1.0, 2, 3]), np.array([2.0, 2, 1])
    found = distances.frechet(normal(mean_a, sd_a, 50), normal(mean_b, sd_b, 80, seed=1))
    assert found == pytest.approx(1 + 4 + 1 + 0 + 4)


def test_frechet_of_itself_of_a_shift_and_of_too_few():
    x = np.random.default_rng(0).normal(size=(300, 5))
    assert distances.frechet(x, x) == pytest.approx(0, abs=1e-8)
    assert distances.frechet(x, x + 2) == pytest.approx(5 * 4)
    assert distances.frechet(x[:, :1], x[:, :1] + 3) == pytest.approx(9)
    few = x[:3]  # of a rank less than their dimension
    assert distances.frechet(few, few) == pytest.approx(0, abs=1e-6)
    with pytest.raises(ValueError, match="two samples, found 1"):
        distances.frechet(x[:1], x)


def test_frechet_agrees_with_torch_fidelity():
    import torch
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(200, 6)), rng.normal(0.3, 2, size=(300, 6)) @ rng.normal(size=(6, 6))
    theirs = [fid_features_to_statistics(torch.from_numpy(x)) for x in (a, b)]
    assert distances.frechet(a, b) == pytest.approx(fid_statistics_to_metric(*theirs, verbose=False)[KEY_METRIC_FID])


def test_the_kernel_distance_is_unbiased_and_knows_a_shift():
    rng = np.random.default_rng(0)
    same = [distances.kernel(rng.normal(size=(20, 4)), rng.normal(size=(30, 4))) for _ in range(300)]
    assert abs(np.mean(same)) < 3 * np.std(same) / np.sqrt(300)  # by each draw's own error
    shifted = [distances.kernel(rng.normal(size=(20, 4)), rng.normal(0.7, size=(30, 4))) for _ in range(100)]
    assert np.mean(shifted) > 5 * np.std(same)
    with pytest.raises(ValueError, match="two samples"):
        distances.kernel(np.ones((1, 2)), np.ones((3, 2)))


def test_the_kernel_distance_by_hand():
    """a = {0, 2}, b = {1, 1} in one dimension: k = (xy + 1)^3; 1 within a, 8 within b, (1 + 27) / 2 between."""
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [1.0]])
    assert distances.kernel(a, b) == pytest.approx(1 + 8 - 2 * 14)
