"""LoRAs for a small UNet."""

from __future__ import annotations

import torch

from tests.standin import unet_config
from vc2.files import lora

CONFIG = unet_config("vc2_tiny")
LAYER = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"


def pair(shape, rank, generator):
    """(up, down) of a layer's weight shape."""
    up = torch.randn(shape[0], rank, *(1,) * (len(shape) - 2), generator=generator)
    return up, torch.randn(rank, *shape[1:], generator=generator)


def turbo_list(config, rank=4):
    g = torch.Generator().manual_seed(0)
    return [t for shape in lora.adapted_modules(config).values() for t in pair(shape, rank, g)]
