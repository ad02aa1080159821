"""torch.compile of the UNet, layer by layer."""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import sys

import torch
from torch import nn

from .unet import Block

BACKEND = "inductor"
# Graphs that the layers of one class may have: one for each width and size, and each shape of batch. torch allows 8,
# and beyond that computes uncompiled.
GRAPHS = 256


def compile_layers(unet: nn.Module) -> None:
    """Compile each layer by itself: those of one shape share what is compiled. Names of parameters stay.

    A size that comes for the first time is compiled when it comes. Raises nothing: ask `missing_compiler` before.
    """
    config = torch._dynamo.config
    limit = "recompile_limit" if hasattr(config, "recompile_limit") else "cache_size_limit"  # its name up to torch 2.6
    setattr(config, limit, max(getattr(config, limit), GRAPHS))
    for block in unet.modules():
        if isinstance(block, Block):
            for layer in block:
                # With sizes as constants: a run has few, and kernels for one size are faster than for any.
                layer.compile(dynamic=False, backend=BACKEND)


def missing_compiler() -> str | None:
    """What torch.compile would miss here, deep in the first pass, and what to do about it; None where it has it all."""
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = shlex.split(os.environ.get("CXX", default))[0]
    if not shutil.which(compiler):
        return (
            f"needs a C++ compiler, and {compiler} is not there; install it, let the environment variable CXX name"
            " another, or leave it out"
        )
    if torch.cuda.is_available() and not importlib.util.find_spec("triton"):
        return "needs triton on a GPU; pip install triton, or leave it out"
    return None
