"""Read what torch.save wrote (.ckpt, .pt, .pth) without ever executing a pickle."""

from __future__ import annotations

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch

from . import CheckpointError


def read_pickle(path: Path) -> Any:
    """What torch.save wrote, tensors memory-mapped, as long as it holds tensors and plain containers alone.

    Raises CheckpointError for anything else, and for a file that is damaged or no such file at all.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # torch.save's format from before 1.6 cannot be mapped
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if refused := re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors ({refused[1]}), and loading that could run code. Nothing was"
                " executed. Get the weights as .safetensors, or a .ckpt with the state dict only"
            ) from error
        with open(path, "rb") as file:
            start = file.read(24)
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint (it starts with {start!r}); download it again"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, IndexError, KeyError, struct.error) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a PyTorch checkpoint: {_first_sentence(error)}"
            " Download it again"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".") + "."
