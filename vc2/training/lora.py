"""LoRA while it is trained: small matrices beside frozen layers, and how a file names them (as stock ComfyUI does).

An adapter is a child of the layer that it adapts and adds to its output, so the network's own parameters keep their
names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..files.lora import GUIDANCE_LAYER, PREFIX
from ..networks.layers import ResBlock, SpatialTransformer, TemporalConv, TemporalTransformer
from ..networks.unet import VideoUNet

MARK = ".adapter."


class Adapter(nn.Module):
    """(alpha / rank) B A x, zero at first."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float | None = None):
        super().__init__()
        self.scale = 1.0 if alpha is None else alpha / rank
        if isinstance(layer, nn.Linear):
            self.lora_A: nn.Module = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_B: nn.Module = nn.Linear(rank, layer.out_features, bias=False)
        elif isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            kind: Any = type(layer)
            self.lora_A = kind(layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.lora_B = kind(rank, layer.out_channels, 1, bias=False)
        else:
            raise TypeError(f"no adapter for a {type(layer).__name__}")
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))  # type: ignore[arg-type]
        nn.init.zeros_(self.lora_B.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_B(self.scale * self.lora_A(x))


# How the names of layers end that `learn.targets` stands for: in transformers, and convolutions of each kind.
TRANSFORMER = {
    "q": (".to_q",),
    "k": (".to_k",),
    "v": (".to_v",),
    "out": (".to_out.0",),
    "ff": (".ff.net.0.proj", ".ff.net.2"),
    "proj": ("proj_in", "proj_out"),
}
SPATIAL_CONV = ("in_layers.2", "out_layers.3")
TEMPORAL_CONV = ("conv1.2", "conv2.3", "conv3.3", "conv4.3")
SPATIAL, TEMPORAL = ("q", "k", "v", "out"), ("v", "out", "ff", "proj", "conv")  # unless a recipe says otherwise


def targets(
    unet: VideoUNet,
    part: str,
    no_transformers: bool = False,
    no_convolutions: bool = False,
    kinds: Sequence[str] | None = None,
    no_queries: bool = False,
) -> list[str]:
    """Names of the layers that get an adapter.

    Spatial: q, k, v and out of attention (VideoCrafter2: 128 Linears, at rank 16 3.32 M parameters). Temporal: v and
    out of attention, feed-forward and projections of the transformers, and the convolutions; not q and k, whose
    gradient on single images is exactly zero. `kinds` (of `TRANSFORMER`, and "conv") instead of both lists.
    `no_transformers`, `no_convolutions` and `no_queries` leave out temporal layers that training does not compute, or
    cannot teach (q and k).
    """
    spatial, temporal = list(kinds or SPATIAL), list(kinds or TEMPORAL)
    if no_queries:
        temporal = [kind for kind in temporal if kind not in ("q", "k")]
    out = []
    for name, module in unet.named_modules():
        if isinstance(module, SpatialTransformer) and part != "temporal":
            ends = _ends(spatial)
        elif isinstance(module, ResBlock) and part != "temporal" and "conv" in spatial:
            ends = SPATIAL_CONV
        elif isinstance(module, TemporalTransformer) and part != "spatial" and not no_transformers:
            ends = _ends(temporal)
        elif isinstance(module, TemporalConv) and part != "spatial" and not no_convolutions and "conv" in temporal:
            ends = TEMPORAL_CONV
        else:
            continue
        out += [f"{name}.{below}" for below, _ in module.named_modules() if below.endswith(ends)]
    if unet.config.time_cond_proj_dim:
        out.append(GUIDANCE_LAYER)  # by which a model of few steps reads the guidance scale
    return out


def _ends(kinds: Sequence[str]) -> tuple[str, ...]:
    return tuple(end for kind in kinds for end in TRANSFORMER.get(kind, ()))


def inject(
    unet: VideoUNet,
    part: str,
    rank: int,
    no_transformers: bool = False,
    no_convolutions: bool = False,
    kinds: Sequence[str] | None = None,
    no_queries: bool = False,
    alpha: float | None = None,
) -> None:
    """Freeze the UNet and give each of its `targets` an adapter."""
    unet.requires_grad_(False)
    for name in targets(unet, part, no_transformers, no_convolutions, kinds, no_queries):
        layer = unet.get_submodule(name)
        layer.adapter = Adapter(layer, rank, alpha)
        layer.register_forward_hook(_add)


def _add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output + layer.adapter(inputs[0])  # type: ignore[operator]


def to_file(weights: dict[str, Tensor], alpha: float | None = None) -> dict[str, Tensor]:
    """Adapters' parameters, by their names in the UNet -> the tensors of a LoRA file. `alpha` None: the rank."""
    out = {}
    for name, tensor in weights.items():
        if MARK not in name:
            continue
        layer, kind = name.split(MARK)
        out[f"{PREFIX}{layer}.{kind}"] = tensor
        if kind == "lora_A.weight":
            out[f"{PREFIX}{layer}.alpha"] = torch.tensor(float(tensor.shape[0] if alpha is None else alpha))
    return out


def split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the network's own tensors, the adapters')"""
    return {n: t for n, t in weights.items() if MARK not in n}, {n: t for n, t in weights.items() if MARK in n}
