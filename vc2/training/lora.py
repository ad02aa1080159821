"""LoRA while it is trained: small matrices beside frozen layers, and how a file names them (as stock ComfyUI does).

An adapter is a child of the layer that it adapts and adds to its output, so the network's own parameters keep their
names.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..files.lora import PREFIX
from ..networks.layers import SpatialTransformer, TemporalConv, TemporalTransformer
from ..networks.unet import VideoUNet

MARK = ".adapter."


class Adapter(nn.Module):
    """(alpha / rank) B A x, zero at first; alpha is the rank, so the factor is 1."""

    def __init__(self, layer: nn.Module, rank: int):
        super().__init__()
        if isinstance(layer, nn.Linear):
            self.lora_A: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_B: nn.Module = nn.Linear(rank, layer.out_features, bias=False)
        elif isinstance(layer, nn.Conv1d | nn.Conv3d):
            kind: Any = type(layer)
            self.lora_A = kind(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.lora_B = kind(rank, layer.out_channels, 1, bias=False)
        else:
            raise TypeError(f"no adapter for a {type(layer).__name__}")
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # type: ignore[arg-type]
        nn.init.zeros_(self.lora_B.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B(self.lora_A(x))


def targets(unet: VideoUNet, part: str, no_transformers: bool = False, no_convolutions: bool = False) -> list[str]:
    """Names of the layers that get an adapter.

    Spatial: q, k, v and out of attention (VideoCrafter2: 128 Linears, at rank 16 3.32 M parameters). Temporal: v and
    out of attention, feed-forward and projections of the transformers, and the convolutions; not q and k, whose
    gradient on single images is exactly zero. `no_transformers` and `no_convolutions` leave out temporal layers that
    training does not compute.
    """
    out = []
    for name, module in unet.named_modules():
        if isinstance(module, SpatialTransformer) and part != "temporal":
            ends: tuple[str, ...] = (".to_q", ".to_k", ".to_v", ".to_out.0")
        elif isinstance(module, TemporalTransformer) and part != "spatial" and not no_transformers:
            ends = (".to_v", ".to_out.0", ".ff.net.0.proj", ".ff.net.2", "proj_in", "proj_out")
        elif isinstance(module, TemporalConv) and part != "spatial" and not no_convolutions:
            ends = ("conv1.2", "conv2.3", "conv3.3", "conv4.3")
        else:
            continue
        out += [f"{name}.{below}" for below, _ in module.named_modules() if below.endswith(ends)]
    return out


def inject(unet: VideoUNet, part: str, rank: int, no_transformers: bool = False, no_convolutions: bool = False) -> None:
    """Freeze the UNet and give each of its `targets` an adapter."""
    unet.requires_grad_(False)
    for name in targets(unet, part, no_transformers, no_convolutions):
        layer = unet.get_submodule(name)
        layer.adapter = Adapter(layer, rank)
        layer.register_forward_hook(_add)


def _add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.adapter(inputs[0])  # type: ignore[operator]


def to_file(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Adapters' parameters, by their names in the UNet -> the tensors of a LoRA file."""
    out = {}
    for name, tensor in weights.items():
        if MARK not in name:
            continue
        layer, kind = name.split(MARK)
        out[f"{PREFIX}{layer}.{kind}"] = tensor
        if kind == "lora_A.weight":
            out[f"{PREFIX}{layer}.alpha"] = torch.tensor(float(tensor.shape[0]))
    return out


def split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the network's own tensors, the adapters')"""
    return {n: t for n, t in weights.items() if MARK not in n}, {n: t for n, t in weights.items() if MARK in n}
