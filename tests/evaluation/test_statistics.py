"""The tests by which differences are called so."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from vc2.evaluation import statistics


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_sign_flips_agree_with_scipy(alternative):
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.normal(0.3, 1, 7)
        theirs = stats.permutation_test(
            (x,), np.mean, permutation_type="samples", n_resamples=np.inf, alternative=alternative
        )
        assert statistics.sign_flip(x, alternative) == pytest.approx(theirs.pvalue)


def test_eight_seeds_can_decide_and_three_cannot():
    assert 5 * statistics.sign_flip([0.1] * 8) < 0.05
    assert statistics.sign_flip([0.1] * 3) > 0.05


def test_equal_is_within_the_margin_and_not_merely_undecided():
    assert statistics.equivalence([0.01, -0.02, 0.0, 0.01, -0.01, 0.02, 0.01, 0.0], 0.1) < 0.01
    assert statistics.equivalence([0.5, -0.5, 0.4, -0.4, 0.3, -0.3, 0.2, -0.2], 0.1) > 0.05
    assert statistics.equivalence([0.2] * 8, 0.1) > 0.5


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
