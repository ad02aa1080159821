"""What is minimised. An objective owns the network that learns, reads the batch of a step, and computes its loss.

Three of them: the diffusion objective of the paper (`diffusion`), and the two that the miniature needs because it has
no Stable Diffusion to start from (`miniature`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from .config import Recipe


class Objective(Protocol):
    model: nn.Module  # what learns
    start: dict[str, str]  # fingerprints of the weights that it begins with, by their key in `init`
    data: dict[str, str]  # identities of its sources, by medium

    def batches(self, start: int, rank: int, world: int) -> Iterator[Any]:
        """This process's share of the batches from step `start` on, each with the `count` of samples in the whole step,
        what was `skipped`, and `content()`.
        """

    def parts(self, batch: Any) -> list[Any]:
        """A batch as the parts that are computed one after another."""

    def loss(self, model: nn.Module, part: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The mean loss of a part through `model` (the network, perhaps wrapped), and figures to log."""

    def export(self, folder: Path, weights: dict[str, Tensor], step: int) -> list[Path]:
        """Write the trained weights as files that the next recipe, or ComfyUI, loads."""


def build(recipe: Recipe, cache: Path, device: torch.device) -> Objective:
    """The recipe's objective, its network on `device`. Raises CheckpointError, SourceError or OSError where what it
    starts from cannot be read.
    """
    from .diffusion import DiffusionObjective
    from .miniature import AutoencoderObjective, TextObjective

    torch.manual_seed(recipe.seed)
    kinds: dict[str, type] = {
        "diffusion": DiffusionObjective,
        "autoencoder": AutoencoderObjective,
        "text": TextObjective,
    }
    return kinds[recipe.objective](recipe, cache, device)
