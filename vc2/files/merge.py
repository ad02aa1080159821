"""Add a LoRA to a UNet's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from .lora import DOWN, UP, by_layer


def merge(state: Mapping[str, Tensor], lora: Mapping[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """A UNet's tensors with those of `lora.load` added: W + strength (alpha / rank) B A, or W + strength diff.

    A tensor that the UNet lacks, such as T2V-Turbo's `time_cond_proj.weight`, counts as zero.
    """
    merged = dict(state)
    for name, change in _changes(lora):
        weight = merged.get(name, torch.zeros_like(change))
        merged[name] = (weight.float() + strength * change).to(weight.dtype)
    return merged


def _changes(lora: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """(name of a tensor of the UNet, what is added to it at strength 1), in float32."""
    for layer, given in by_layer(lora).items():
        if DOWN in given:
            down, up = given[DOWN].float(), given[UP].float()
            scale = float(given["alpha"]) / len(down) if "alpha" in given else 1.0
            product = up.flatten(1) @ down.flatten(1)
            yield f"{layer}.weight", product.reshape(len(up), *down.shape[1:]) * scale
        if "diff" in given:
            yield f"{layer}.weight", given["diff"].float()
        if "diff_b" in given:
            yield f"{layer}.bias", given["diff_b"].float()
