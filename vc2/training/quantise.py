"""The frozen Linears of a UNet in eight bits (bitsandbytes' LLM.int8), for a LoRA where memory is short.

A byte a weight and a scale a row take the place of two bytes (bf16) or four; VideoCrafter2 has 581 M of its 1413 M
parameters in Linears, the rest are convolutions, which stay as they are. Files are exported from the weights that a
run starts from, never from these.
"""

from __future__ import annotations

import torch
from torch import nn

OUTLIER = 6.0  # activations beyond are multiplied in 16 bits (LLM.int8, arXiv 2208.07339, section 3.2)


def quantise(network: nn.Module, device: torch.device) -> None:
    """Replace all Linears of a network in which nothing learns yet, in place, and put them on `device`."""
    from bitsandbytes.nn import Linear8bitLt

    for name, layer in list(network.named_modules()):
        if not isinstance(layer, nn.Linear):
            continue
        eight = Linear8bitLt(
            layer.in_features, layer.out_features, layer.bias is not None, has_fp16_weights=False, threshold=OUTLIER
        )
        eight.load_state_dict(layer.state_dict())
        above, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(above), leaf, eight.requires_grad_(False).to(device))
