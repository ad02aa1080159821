"""How a device computes a step: its kernels, and the UNet's layers compiled."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from ..networks.compiled import missing_compiler
from .errors import RecipeError
from .recipe import Recipe


def choose_kernels(device: torch.device) -> None:
    """On CUDA: the fastest convolutions of those that cuDNN has (the shapes of a run are few), and TF32 for what stays
    in float32. What a CPU computes is left as it is.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")


def uncompiled(recipe: Recipe) -> AbstractContextManager[object]:
    """Within it, compiled layers compute as they are written: for what happens so rarely, at sizes of its own, that
    compiling it would not pay.
    """
    return torch.compiler.set_stance("force_eager") if recipe.compute.compile else nullcontext()


def require_compiler() -> None:
    """Raise RecipeError where torch.compile would find no compiler, deep in the first step."""
    if missing := missing_compiler():
        raise RecipeError(f"compute.compile {missing}")
