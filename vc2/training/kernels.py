"""How a device computes a step: its kernels, and the UNet's layers compiled."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from ..networks.unet import Block
from .errors import RecipeError
from .recipe import Recipe

BACKEND = "inductor"
# Graphs that the layers of one class may have: one for each width and size, and each shape of batch. torch allows 8,
# and beyond that computes uncompiled.
GRAPHS = 256


def choose_kernels(device: torch.device) -> None:
    """On CUDA: the fastest convolutions of those that cuDNN has (the shapes of a run are few), and TF32 for what stays
    in float32. What a CPU computes is left as it is.
    """
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        torch.backends.cudnn.allow_tf32 = True
        torch.set_float32_matmul_precision("high")


def compile_layers(unet: nn.Module) -> None:
    """Compile each layer by itself: those of one shape share what is compiled. Names of parameters stay."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, GRAPHS)
    for block in unet.modules():
        if isinstance(block, Block):
            for layer in block:
                # With sizes as constants: a run has few, and kernels for one size are faster than for any.
                layer.compile(dynamic=False, backend=BACKEND)


def uncompiled(recipe: Recipe) -> AbstractContextManager[object]:
    """Within it, compiled layers compute as they are written: for what happens so rarely, at sizes of its own, that
    compiling it would not pay.
    """
    return torch.compiler.set_stance("force_eager") if recipe.compute.compile else nullcontext()


def require_compiler() -> None:
    """Raise RecipeError where torch.compile would find no compiler, deep in the first step."""
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = shlex.split(os.environ.get("CXX", default))[0]
    if not shutil.which(compiler):
        raise RecipeError(
            f"compute.compile needs a C++ compiler, and {compiler} is not there; install it, let the environment"
            " variable CXX name another, or set compute.compile=false"
        )
    if torch.cuda.is_available() and not importlib.util.find_spec("triton"):
        raise RecipeError("compute.compile needs triton on a GPU; pip install triton, or set compute.compile=false")
