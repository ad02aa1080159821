"""theta_S and theta_T: which parameters are spatial (in SD 2.1 too), which temporal, and which of them learn (paper
section 3.2).
"""

from __future__ import annotations

import re

from torch import nn

from ..files.lora import GUIDANCE_LAYER
from ..networks.layers import TemporalConv, TemporalTransformer
from ..networks.unet import VideoUNet
from . import lora
from .recipe import Recipe


def temporal_names(unet: VideoUNet) -> frozenset[str]:
    """Names of theta_T: the temporal transformers and convolutions, `init_attn` and `fps_embedding` (798 of
    VideoCrafter2's 1484 tensors).
    """
    prefixes = [
        f"{name}." for name, module in unet.named_modules() if isinstance(module, TemporalTransformer | TemporalConv)
    ]
    prefixes += ["init_attn.", "fps_embedding."]
    return frozenset(name for name, _ in unet.named_parameters() if name.startswith(tuple(prefixes)))


def is_temporal(module: VideoUNet, name: str) -> bool:
    """Whether the parameter called `name` of the VideoUNet `module` belongs to theta_T."""
    return name in temporal_names(module)


def mark_what_learns(unet: VideoUNet, recipe: Recipe) -> None:
    """Freeze everything but what the recipe trains, adapters included."""
    part, temporal = recipe.learn.part, recipe.diffusion.image_temporal
    if recipe.learn.how == "direct":
        freeze_except(unet, part, untouched_by_images(unet, temporal) if recipe.image_only else frozenset())
        return
    # Adapters go on what will be computed: on images alone not all temporal layers are.
    no_transformers = recipe.image_only and temporal == "bypass"
    no_convolutions = recipe.image_only and temporal != "full"
    lora.inject(
        unet,
        part,
        recipe.learn.rank,
        no_transformers,
        no_convolutions,
        recipe.learn.targets,
        no_queries=recipe.image_only,
        alpha=recipe.learn.alpha,
    )


def freeze_except(unet: VideoUNet, part: str, also: frozenset[str] = frozenset()) -> None:
    """Let only `part` learn: "spatial", "temporal" or "all"; and freeze the parameters of `also`. What is frozen has no
    gradient and no optimizer state. By what a model of few steps reads the guidance scale learns with every part.
    """
    temporal = temporal_names(unet)
    for name, parameter in unet.named_parameters():
        of_part = part == "all" or (name in temporal) == (part == "temporal") or name.startswith(GUIDANCE_LAYER)
        parameter.requires_grad_(of_part and name not in also)


def untouched_by_images(unet: VideoUNet, image_temporal: str) -> frozenset[str]:
    """Parameters that single images cannot teach, given how images pass the temporal layers.

    With one frame the temporal softmax is 1 whatever q and k (and VideoCrafter1's relative positions, of which only
    distance 0 is used): their gradient is zero but for rounding, which Adam would blow up to full steps. Temporal
    convolutions learn under "full" alone, and no temporal transformer under "bypass".
    """
    skipped = tuple(
        f"{name}."
        for name, module in unet.named_modules()
        if (isinstance(module, TemporalConv) and image_temporal != "full")
        or (isinstance(module, TemporalTransformer) and image_temporal == "bypass")
    )
    no_gradient = re.compile(r"\.to_[qk]\.weight$|\.relative_position_[kv]\.")
    return frozenset(name for name in temporal_names(unet) if no_gradient.search(name) or name.startswith(skipped))


def train_what_learns(module: nn.Module) -> nn.Module:
    """Training mode, but evaluation mode (no dropout) wherever nothing learns."""
    module.train()
    for child in module.modules():
        parameters = list(child.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            child.eval()
    return module
