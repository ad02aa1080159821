"""What a recipe costs: floating-point operations, memory and A100-hours, counted on the network itself without
computing anything (torch's meta device).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..files import checkpoint
from ..networks.config import AutoencoderConfig, UNetConfig, as_config
from ..networks.unet import Block, VideoUNet
from .config import Recipe, Source
from .diffusion import mark_what_learns

A100 = 312e12  # bf16 FLOP/s, by the data sheet
UTILISATION = 0.4  # share of it that a good training run reaches
# Peak dense bf16 FLOP/s by a part of the device's name, by the makers' data sheets.
PEAKS = {
    "H200": 989e12, "H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "A100": A100, "L40S": 362e12, "A6000": 155e12, "4090": 165e12, "3090": 71e12,
    "A10G": 70e12, "A10": 125e12,
}  # fmt: skip


def peak_flops(device: torch.device) -> float:
    """Peak bf16 FLOP/s of a device, 0 where unknown (a CPU, say)."""
    if device.type != "cuda":
        return 0.0
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if re.search(rf"\b{part}\b", name)), 0.0)


@dataclass(frozen=True)
class Cost:
    """Of one sample, and what a process holds. A sample is a clip, or an image on image-only data; bytes are for one
    process that holds everything.
    """

    learning: int  # parameters
    frozen: int
    flops: float  # forward and backward, with what gradient checkpointing computes again
    model_flops: float  # without; what MFU counts
    encode_flops: float  # the autoencoder's; 0 where latents are prepared
    total: float  # FLOP of the whole run
    unet: float  # bytes: weights (with autocast's copies), gradients, optimizer, average
    encoders: float  # bytes: autoencoder and text encoder

    @property
    def static(self) -> float:
        return self.unet + self.encoders

    @property
    def a100_hours(self) -> float:
        return self.total / (A100 * UTILISATION) / 3600


def estimate(recipe: Recipe) -> Cost:
    """Raises CheckpointError where a file that the recipe starts from cannot be read."""
    config = unet_config(recipe)
    unet = network(recipe, config)
    learning = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
    bf16 = recipe.compute.precision == "bf16"
    state = 2 if recipe.optimizer.kind == "adamw8bit" else 8
    # Parameters of kl-f8 and of ViT-H/14's text tower, which every model of this width comes with.
    vae, text = (83.7e6, 354e6) if config.context_dim == 1024 else (0.0, 0.0)
    return Cost(
        learning=learning,
        frozen=frozen,
        flops=sample_flops(recipe, config, recipe.longest),
        model_flops=sample_flops(recipe, config, recipe.longest, again=False),
        encode_flops=_encoding(recipe.data.clips or recipe.data.images, recipe, recipe.longest),
        total=_total(recipe, config),
        unet=learning * (4 + (2 if bf16 else 0) + 4 + state + 4) + frozen * (2 if bf16 else 4),
        encoders=vae * 4 + text * (2 if bf16 else 4),
    )


def _total(recipe: Recipe, config: UNetConfig) -> float:
    out = 0.0
    for frames, _, _ in recipe.data.lengths:
        share = recipe.image_share(frames)
        if share < 1:
            out += (
                (1 - share)
                * recipe.batch
                * (sample_flops(recipe, config, frames) + _encoding(recipe.data.clips, recipe, frames))
            )
        if share > 0:
            images = recipe.batch * (1 if recipe.image_only else frames)
            out += share * images * (sample_flops(recipe, config, 1) + _encoding(recipe.data.images, recipe, 1))
    return recipe.steps * out / len(recipe.data.lengths)


def _encoding(source: Source | None, recipe: Recipe, frames: int) -> float:
    return (
        0.0
        if source is None or source.prepared != "no"
        else frames * encode_flops(recipe.data.width, recipe.data.height)
    )


def memory(recipe: Recipe, cost: Cost, processes: int = 1) -> float:
    """Bytes that a process needs at its largest, about: what it holds, and what a micro-batch keeps for the backward
    pass.
    """
    kept = saved_bytes(
        network(recipe, unet_config(recipe)),
        recipe.longest,
        recipe.data.height // 8,
        recipe.data.width // 8,
        recipe.compute.precision == "bf16",
    )
    micro = recipe.compute.micro_batch or max(1, recipe.batch // processes)
    unet = cost.unet / processes if recipe.compute.sharding == "full" else cost.unet
    return unet + cost.encoders + micro * kept


def unet_config(recipe: Recipe) -> UNetConfig:
    """Of the file that the recipe starts from, where it is there, else of what the recipe says."""
    if recipe.init.unet and recipe.init.unet.is_file():
        return checkpoint.load(recipe.init.unet).config
    return as_config(UNetConfig, recipe.networks.unet)


def network(recipe: Recipe, config: UNetConfig, checkpointing: bool | None = None) -> VideoUNet:
    """The recipe's network without weights, that which learns marked so; `checkpointing` instead of the recipe's."""
    unet = VideoUNet(config, device="meta")
    with torch.device("meta"):
        mark_what_learns(unet, recipe)
    for module in unet.modules():
        if isinstance(module, Block):
            module.use_checkpoint = recipe.compute.gradient_checkpointing if checkpointing is None else checkpointing
    return unet.train()


def _forward(
    unet: VideoUNet, frames: int, height: int, width: int, dtype: torch.dtype = torch.float32, image: str = "identity"
) -> torch.Tensor:
    with torch.device("meta"):
        x, context, t = (
            torch.zeros(1, 4, frames, height, width, dtype=dtype),
            torch.zeros(1, 77, unet.config.context_dim, dtype=dtype),
            torch.zeros(1),
        )
    return unet(x, t, context, t, temporal="full" if frames > 1 else image)


def count_flops(unet: VideoUNet, frames: int, height: int, width: int, image: str = "identity") -> float:
    """Of one clip, forward and backward; `image`: how one of a single frame passes the temporal layers."""
    with FlopCounterMode(display=False) as counter:
        _forward(unet, frames, height, width, image=image).sum().backward()
    for p in unet.parameters():
        p.grad = None
    return float(counter.get_total_flops())


def saved_bytes(unet: VideoUNet, frames: int, height: int, width: int, bf16: bool) -> float:
    """What one clip's activations take at their largest: all that the forward pass keeps for the backward pass, weights
    aside, each tensor once. With gradient checkpointing that is little, and beside it is what the largest block keeps
    while it is computed again.
    """
    blocks = [module for module in unet.modules() if isinstance(module, Block)]
    checkpointed = [block.use_checkpoint for block in blocks]
    kept, _ = _kept(unet, blocks, frames, height, width, bf16)
    if not any(checkpointed):
        return kept
    for block in blocks:
        block.use_checkpoint = False
    _, largest = _kept(unet, blocks, frames, height, width, bf16)
    for block, was in zip(blocks, checkpointed, strict=True):
        block.use_checkpoint = was
    return kept + largest


def _fused_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """What devices choose of torch's kernels, none of which keeps the weights of every pair; without a device torch
    chooses the one that does.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2).flatten(2)


def _kept(
    unet: VideoUNet, blocks: list[Block], frames: int, height: int, width: int, bf16: bool
) -> tuple[float, float]:
    """Bytes that a forward pass keeps, and those of the block that keeps the most."""
    unet.use_attention(_fused_attention)
    dtype = torch.bfloat16 if bf16 else torch.float32
    unet = unet.to(dtype)
    own = {id(p) for p in unet.parameters()}
    kept: dict[int, tuple[torch.Tensor, int]] = {}
    of_blocks = dict.fromkeys(blocks, 0)

    def total() -> int:
        return sum(size for _, size in kept.values())

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter):
            kept[storage._cdata] = (tensor, storage.nbytes())  # the tensor, too, so that no other takes its place
        return tensor

    def enter(block: Block, _: Any) -> None:
        of_blocks[block] -= total()

    def leave(block: Block, *_: Any) -> None:
        of_blocks[block] += total()

    hooks = [
        hook
        for block in blocks
        for hook in (block.register_forward_pre_hook(enter), block.register_forward_hook(leave))
    ]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = _forward(unet, frames, height, width, dtype)
    del out
    for hook in hooks:
        hook.remove()
    unet.to(torch.float32).use_attention("torch")
    return float(total()), float(max(of_blocks.values()))


@lru_cache(8)
def encode_flops(width: int, height: int) -> float:
    """The autoencoder's, for one frame."""
    from ..networks.autoencoder import AutoencoderKL

    vae = AutoencoderKL(AutoencoderConfig(), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(torch.zeros(1, 3, height, width, device="meta"))
    return float(counter.get_total_flops())


def sample_flops(recipe: Recipe, config: UNetConfig, frames: int, again: bool = True) -> float:
    """Forward and backward of one sample of this many frames; with `again`, gradient checkpointing's second forward
    too. Each shape is counted once.
    """
    checkpointing = again and recipe.compute.gradient_checkpointing
    height, width = recipe.data.height // 8, recipe.data.width // 8
    key = (
        config,
        recipe.learn,
        checkpointing,
        recipe.image_only,
        recipe.diffusion.image_temporal,
        frames,
        height,
        width,
    )
    if key not in _counted:
        _counted[key] = count_flops(
            network(recipe, config, checkpointing), frames, height, width, recipe.diffusion.image_temporal
        )
    return _counted[key]


_counted: dict[tuple, float] = {}
