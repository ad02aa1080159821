"""What a recipe asks for, built: its objective and its optimizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import kernels
from .consistency import ConsistencyObjective
from .diffusion import DiffusionObjective
from .errors import RecipeError
from .miniature import AutoencoderObjective, TextObjective
from .objective import Objective
from .recipe import Recipe

OBJECTIVES: dict[str, Callable[[Recipe, Path, torch.device], Objective[Any]]] = {
    "diffusion": DiffusionObjective,
    "consistency": ConsistencyObjective,
    "autoencoder": AutoencoderObjective,
    "text": TextObjective,
}


def build_objective(recipe: Recipe, cache: Path, device: torch.device) -> Objective[Any]:
    """The recipe's objective, its network on `device`. Raises CheckpointError, SourceError or OSError where what it
    starts from cannot be read.
    """
    torch.manual_seed(recipe.seed)
    kernels.choose_kernels(device)
    return OBJECTIVES[recipe.objective](recipe, cache, device)


def build_optimizer(recipe: Recipe, network: nn.Module) -> torch.optim.Optimizer:
    """AdamW over what learns. Raises RecipeError for nothing that learns, or 8 bits without bitsandbytes."""
    config = recipe.optimizer
    learning = [p for p in network.parameters() if p.requires_grad]
    if not learning:
        raise RecipeError(f"{recipe.name}: nothing learns; look at learn.part, learn.how and diffusion.image_temporal")
    if config.kind == "adamw":
        return torch.optim.AdamW(learning, config.lr, config.betas, weight_decay=config.weight_decay, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise RecipeError(
            f"optimizer.kind adamw8bit needs bitsandbytes ({error}); pip install bitsandbytes, or use adamw"
        ) from error
    return AdamW8bit(learning, config.lr, config.betas, weight_decay=config.weight_decay)
