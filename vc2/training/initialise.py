"""Starting weights."""

from __future__ import annotations

from typing import Any

import torch

from ..layers import ResBlock, TemporalConv, Transformer
from ..unet import VideoUNet


@torch.no_grad()
def zero_outputs(unet: VideoUNet) -> VideoUNet:
    """Make every residual branch of a fresh UNet start as zero (as the official constructors do), and with them the prediction."""
    layers: list[Any] = [unet.out[-1]]
    for module in unet.modules():
        if isinstance(module, ResBlock):
            layers.append(module.out_layers[-1])
        elif isinstance(module, Transformer):
            layers.append(module.proj_out)
        elif isinstance(module, TemporalConv):
            layers.append(module.conv4[-1])
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()
    return unet
