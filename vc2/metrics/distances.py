"""How far two sets of features are from each other."""

from __future__ import annotations

import numpy as np


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """The Frechet distance of the normal distributions fitted to `[N, D]` and `[M, D]` (Heusel et al., 2017):

        |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))

    Few samples make it larger: their covariances miss directions. Raises ValueError for fewer than two of either.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a covariance takes two samples, found {len(a)} and {len(b)}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    difference = a.mean(0) - b.mean(0)
    cov_a, cov_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # The root's trace is the sum of the roots of the eigenvalues; rounding leaves some of them below 0, or complex.
    eigenvalues = np.linalg.eigvals(cov_a @ cov_b).real.clip(0)
    return float(difference @ difference + np.trace(cov_a) + np.trace(cov_b) - 2 * np.sqrt(eigenvalues).sum())


def kernel(a: np.ndarray, b: np.ndarray) -> float:
    """The squared maximum mean discrepancy of features `[N, D]` and `[M, D]`, unbiased, kernel (x y / D + 1)^3 (KID:
    Binkowski et al., 2018). On average the same for any number of samples, and 0 for two draws of one distribution; so
    it may come out below 0. Raises ValueError for fewer than two of either.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the unbiased estimate takes two samples, found {len(a)} and {len(b)}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)

    def within(x: np.ndarray) -> float:
        k = _cubic(x, x)
        return float((k.sum() - np.trace(k)) / (len(x) * (len(x) - 1)))

    return within(a) + within(b) - 2 * float(_cubic(a, b).mean())


def _cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1) ** 3
