"""Exact tests over few training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


def sign_flip(differences: ArrayLike, alternative: str = "two-sided") -> float:
    """The p-value of "the mean is 0" (`alternative`: "two-sided", "greater" or "less"): how many of the 2^n ways to
    give the differences signs have a mean at least as far. Exact; with n seeds no smaller than 1 / 2^n one-sided.
    """
    values = np.asarray(differences, dtype=float)
    signs = np.array(list(product((1, -1), repeat=len(values))))
    means, observed = signs @ values / len(values), values.mean()
    slack = 1e-12 * max(1.0, float(np.abs(values).max()))  # sums in another order round differently
    if alternative == "two-sided":
        return float((np.abs(means) >= abs(observed) - slack).mean())
    if alternative == "less":
        means, observed = -means, -observed
    return float((means >= observed - slack).mean())


def equivalence(differences: ArrayLike, margin: float) -> float:
    """The p-value of "the mean is not within +-margin": two one-sided tests (TOST), both by sign flips."""
    values = np.asarray(differences, dtype=float)
    return max(sign_flip(values + margin, "greater"), sign_flip(values - margin, "less"))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values (Holm, 1979), in the order given."""
    order = np.argsort(p_values)
    adjusted, worst = np.empty(len(order)), 0.0
    for rank, index in enumerate(order):
        worst = max(worst, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted.tolist()


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """The t-interval of the mean."""
    mean, error = float(np.mean(values)), float(stats.sem(values))
    low, high = stats.t.interval(level, len(values) - 1, loc=mean, scale=error) if error else (mean, mean)
    return float(low), float(high)
