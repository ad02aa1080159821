"""Random numbers that follow from a key, such as (seed, purpose, step, slot), and from nothing that went before.

That is what lets a run resume at any step, and be shared by any number of processes, without a change in what it draws.
"""

from __future__ import annotations

import numpy as np
import torch

# What numbers are drawn for, the second part of most keys: those of one purpose say nothing about those of another.
PLAN, ORDER, SAMPLE, SPARE, NOISE, VALIDATION, MIXTURE = range(7)


def numpy_generator(*key: int) -> np.random.Generator:
    """Numpy's generator of `key`."""
    return np.random.default_rng(key)


def torch_generator(*key: int) -> torch.Generator:
    """Torch's, on the CPU, so that every device gets the same numbers."""
    return torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
