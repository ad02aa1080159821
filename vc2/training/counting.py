"""Operations and memory of a network, counted on itself without computing anything (on torch's meta device)."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..networks.autoencoder import AutoencoderKL
from ..networks.config import AutoencoderConfig, UNetConfig
from ..networks.unet import Block, VideoUNet
from .partition import mark_what_learns
from .recipe import Recipe


def network(recipe: Recipe, config: UNetConfig, checkpointing: bool | None = None) -> VideoUNet:
    """The recipe's network without weights, that which learns marked so; `checkpointing` instead of the recipe's."""
    unet = VideoUNet(config, device="meta")
    with torch.device("meta"):
        mark_what_learns(unet, recipe)
    for module in unet.modules():
        if isinstance(module, Block):
            module.use_checkpoint = recipe.compute.gradient_checkpointing if checkpointing is None else checkpointing
    return unet.train()


def count_sample(recipe: Recipe, config: UNetConfig, frames: int, checkpointing: bool) -> int:
    """FLOP of one sample of the recipe, forward and backward."""
    unet, temporal = network(recipe, config, checkpointing), recipe.diffusion.image_temporal
    return count_flops(unet, frames, recipe.data.height // 8, recipe.data.width // 8, temporal)


def count_flops(unet: VideoUNet, frames: int, height: int, width: int, image: str = "identity") -> int:
    """Of one clip of latents, forward and backward; `image`: how one of a single frame passes the temporal layers."""
    with FlopCounterMode(display=False) as counter:
        _forward(unet, frames, height, width, image=image).sum().backward()
    for p in unet.parameters():
        p.grad = None
    return counter.get_total_flops()


def count_encoding(width: int, height: int) -> int:
    """The autoencoder's FLOP for one frame."""
    vae = AutoencoderKL(AutoencoderConfig(), device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        vae.encode(torch.zeros(1, 3, height, width, device="meta"))
    return counter.get_total_flops()


def _forward(
    unet: VideoUNet, frames: int, height: int, width: int, dtype: torch.dtype = torch.float32, image: str = "identity"
) -> torch.Tensor:
    with torch.device("meta"):
        x = torch.zeros(1, 4, frames, height, width, dtype=dtype)
        context = torch.zeros(1, 77, unet.config.context_dim, dtype=dtype)
        t = torch.zeros(1)
    return unet(x, t, context, t, temporal="full" if frames > 1 else image)


def saved_bytes(unet: VideoUNet, frames: int, height: int, width: int, bf16: bool) -> float:
    """What one clip's activations take at their largest: all that the forward pass keeps for the backward pass, weights
    aside, each tensor once. With gradient checkpointing that is little, and beside it is what the largest block keeps
    while it is computed again.
    """
    blocks = [module for module in unet.modules() if isinstance(module, Block)]
    checkpointed = [block.use_checkpoint for block in blocks]
    total, _ = _saved(unet, blocks, frames, height, width, bf16)
    if not any(checkpointed):
        return total
    for block in blocks:
        block.use_checkpoint = False
    _, largest = _saved(unet, blocks, frames, height, width, bf16)
    for block, was in zip(blocks, checkpointed, strict=True):
        block.use_checkpoint = was
    return total + largest


def _saved(
    unet: VideoUNet, blocks: list[Block], frames: int, height: int, width: int, bf16: bool
) -> tuple[float, float]:
    """Bytes that a forward pass keeps, and those of the block that keeps the most."""
    unet.use_attention(_fused_attention)
    dtype = torch.bfloat16 if bf16 else torch.float32
    unet = unet.to(dtype)
    own = {id(p) for p in unet.parameters()}
    storages: dict[int, tuple[torch.Tensor, int]] = {}
    of_blocks = dict.fromkeys(blocks, 0)

    def total() -> int:
        return sum(size for _, size in storages.values())

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter):
            storages[storage._cdata] = (tensor, storage.nbytes())  # the tensor, too, so that no other takes its place
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
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        out = _forward(unet, frames, height, width, dtype)
    del out
    for hook in hooks:
        hook.remove()
    unet.to(torch.float32).use_attention("torch")
    return float(total()), float(max(of_blocks.values()))


def _fused_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """What devices choose of torch's kernels, none of which keeps the weights of every pair; without a device torch
    chooses the one that does.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2).flatten(2)
