"""What a recipe needs: compute, and memory of each process."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from . import cost
from .counting import network, saved_bytes
from .recipe import Recipe


@dataclass(frozen=True)
class Estimate:
    """Of one sample, and what a process holds. A sample is a clip, or an image on image-only data; bytes are for one
    process that holds everything.
    """

    learning: int  # parameters
    frozen: int
    flops: float  # forward and backward, with what gradient checkpointing computes again
    model_flops: float  # without; what MFU counts
    encode_flops: float  # the autoencoder's; 0 where latents are prepared
    a100_hours: float  # of the whole run
    unet: float  # bytes: weights (with autocast's copies), gradients, optimizer, average
    encoders: float  # bytes: autoencoder and text encoder
    activations: float  # bytes that a sample keeps for the backward pass

    @property
    def static(self) -> float:
        return self.unet + self.encoders


def estimate(recipe: Recipe) -> Estimate:
    """Raises CheckpointError where a file that the recipe starts from cannot be read."""
    config, data, bf16 = cost.unet_config(recipe), recipe.data, recipe.compute.precision == "bf16"
    unet = network(recipe, config)
    learning = sum(p.numel() for p in unet.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in unet.parameters() if not p.requires_grad)
    bytes_frozen = frozen * (2 if bf16 else 4)
    if recipe.compute.frozen == "int8":
        eight = sum(m.weight.numel() for m in unet.modules() if type(m) is nn.Linear and not m.weight.requires_grad)
        bytes_frozen -= eight * (1 if bf16 else 3)
    state = 2 if recipe.optimizer.kind == "adamw8bit" else 8
    # Parameters of kl-f8 and of ViT-H/14's text tower, which every model of this width comes with.
    vae, text = (83.7e6, 354e6) if config.context_dim == 1024 else (0.0, 0.0)
    return Estimate(
        learning=learning,
        frozen=frozen,
        flops=cost.sample_flops(recipe, config, recipe.longest),
        model_flops=cost.sample_flops(recipe, config, recipe.longest, again=False),
        encode_flops=cost.encode_flops(recipe, data.clips or data.images, recipe.longest),
        a100_hours=cost.a100_hours(recipe),
        unet=learning * (4 + (2 if bf16 else 0) + 4 + state + 4) + bytes_frozen,
        encoders=vae * 4 + text * (2 if bf16 else 4),
        activations=saved_bytes(unet, recipe.longest, data.height // 8, data.width // 8, bf16),
    )


def memory(recipe: Recipe, needs: Estimate, processes: int = 1) -> float:
    """Bytes that a process needs at its largest, about: what it holds, and what a micro-batch keeps for the backward
    pass.
    """
    micro = recipe.compute.micro_batch or max(1, recipe.batch // processes)
    unet = needs.unet / processes if recipe.compute.sharding == "full" else needs.unet
    return unet + needs.encoders + micro * needs.activations
