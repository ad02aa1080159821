"""Operations and memory of a network, counted on itself without computing anything (on torch's meta device)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from ..networks.autoencoder import AutoencoderKL
from ..networks.config import AutoencoderConfig, UNetConfig
from ..networks.unet import Block, VideoUNet
from .partition import mark_what_learns
from .recipe import Recipe


def network(recipe: Recipe, config: UNetConfig) -> VideoUNet:
    """The recipe's network without weights, that which learns marked so."""
    unet = VideoUNet(config, device="meta")
    with torch.device("meta"):
        mark_what_learns(unet, recipe)
    return unet.train()


def count_sample(recipe: Recipe, config: UNetConfig, frames: int) -> list[int]:
    """FLOP of one sample of the recipe: forward and backward, and then what gradient checkpointing computes again at
    each level of the UNet.
    """
    unet, again, backward, started = network(recipe, config), [0] * len(config.channel_mult), False, 0
    unet.gradient_checkpointing(True)
    with FlopCounterMode(display=False) as counter, ExitStack() as hooks:

        def enter(*_: Any) -> None:
            nonlocal started
            started = counter.get_total_flops()

        def leave(layer: nn.Module, level: int) -> None:
            if backward:
                again[level] += counter.get_total_flops() - started

        _watch_layers(unet, hooks, enter, leave)
        height, width = recipe.data.height // 8, recipe.data.width // 8
        loss = _forward(unet, frames, height, width, image=recipe.diffusion.image_temporal).sum()
        backward = True
        loss.backward()
    return [counter.get_total_flops() - sum(again), *again]


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


def _watch_layers(
    unet: VideoUNet,
    hooks: ExitStack,
    enter: Callable[..., None],
    leave: Callable[[nn.Module, int], None],
) -> None:
    """Call `enter` before and `leave` (with the block's level) after each layer that checkpointing may compute again;
    that ends early, by an exception, as soon as it has what was not kept.
    """
    for block in unet.modules():
        if isinstance(block, Block):
            for layer in block.recomputable:

                def after(layer: nn.Module, *_: Any, level: int = block.level) -> None:
                    leave(layer, level)

                hooks.callback(layer.register_forward_pre_hook(enter).remove)
                hooks.callback(layer.register_forward_hook(after, always_call=True).remove)


def _forward(
    unet: VideoUNet, frames: int, height: int, width: int, dtype: torch.dtype = torch.float32, image: str = "identity"
) -> Tensor:
    with torch.device("meta"):
        x = torch.zeros(1, 4, frames, height, width, dtype=dtype)
        context = torch.zeros(1, 77, unet.config.context_dim, dtype=dtype)
        t = torch.zeros(1)
    return unet(x, t, context, t, temporal="full" if frames > 1 else image)


@dataclass(frozen=True)
class Kept:
    """Bytes of activations that one layer adds to what the forward pass keeps for the backward pass, or the layers
    between two of them that are never computed again (level None).
    """

    level: int | None
    whole: int
    checkpointed: int
    largest: int  # tensor of `whole`


def kept_activations(unet: VideoUNet, frames: int, height: int, width: int, bf16: bool) -> list[Kept]:
    """Of one sample, layer by layer in the order of the forward pass; weights aside, each tensor once."""
    was = {block: block.use_checkpoint for block in unet.modules() if isinstance(block, Block)}
    unet.gradient_checkpointing(False)
    whole = _kept(unet, frames, height, width, bf16)
    unet.gradient_checkpointing(True)
    checkpointed = _kept(unet, frames, height, width, bf16)
    for block, use in was.items():
        block.use_checkpoint = use
    return [Kept(level, a, b, most) for (level, a, most), (_, b, _) in zip(whole, checkpointed, strict=True)]


def peak(kept: Sequence[Kept], levels: Collection[int]) -> int:
    """Bytes that activations take at their most where those levels are checkpointed. That is somewhere in the backward
    pass: what the layers before one keep, all of its own (computed again, perhaps), and gradients of it on their way,
    which take about twice its largest tensor.
    """
    before = most = 0
    for layer in kept:
        most = max(most, before + layer.whole + 2 * layer.largest)
        before += layer.checkpointed if layer.level in levels else layer.whole
    return most


def _kept(unet: VideoUNet, frames: int, height: int, width: int, bf16: bool) -> list[tuple[int | None, int, int]]:
    """The level of each layer, the bytes that it keeps, and those of the largest tensor among them."""
    unet.use_attention(_fused_attention, _fused_attention)
    autocast, weights = Autocast(bf16), {p.untyped_storage()._cdata for p in unet.parameters()}
    storages: dict[int, Tensor] = {}  # the tensors, so that no other takes their place
    layers: list[tuple[int | None, int, int]] = []
    seen = 0

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in autocast.weights:
            storages.setdefault(storage._cdata, tensor)
        return tensor

    def mark(level: int | None) -> None:
        nonlocal seen
        sizes = [tensor.untyped_storage().nbytes() for tensor in list(storages.values())[seen:]]
        layers.append((level, sum(sizes), max(sizes, default=0)))
        seen = len(storages)

    with ExitStack() as hooks:
        _watch_layers(unet, hooks, lambda *_: mark(None), lambda _, level: mark(level))
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor), autocast:
            out = _forward(unet, frames, height, width)
    del out
    mark(None)
    unet.use_attention("torch")
    return layers


class Autocast(TorchFunctionMode):
    """What CUDA's autocast to bfloat16 does, for tensors on the meta device, which has none: products in bfloat16,
    norms in float32. Weights are rounded once.
    """

    PRODUCTS = frozenset({"linear", "conv1d", "conv2d", "conv3d"})
    NORMS = frozenset({"group_norm", "layer_norm"})

    def __init__(self, enabled: bool):
        super().__init__()
        self.enabled = enabled
        self._rounded: dict[int, Tensor] = {}  # by the id of the parameter
        self.weights: set[int] = set()  # the storages of those

    def _product(self, value: Any) -> Any:
        if isinstance(value, nn.Parameter):
            if id(value) not in self._rounded:
                self._rounded[id(value)] = value.to(torch.bfloat16)
                self.weights.add(self._rounded[id(value)].untyped_storage()._cdata)
            return self._rounded[id(value)]
        return value.to(torch.bfloat16) if isinstance(value, Tensor) else value

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if self.enabled and func.__name__ in self.PRODUCTS:
            args = tuple(self._product(value) for value in args)
        elif self.enabled and func.__name__ in self.NORMS:
            args = tuple(value.float() if isinstance(value, Tensor) else value for value in args)
        return func(*args, **(kwargs or {}))


def _fused_attention(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """What devices choose of torch's kernels, none of which keeps the weights of every pair; without a device torch
    chooses the one that does.
    """
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0].transpose(1, 2).flatten(2)
