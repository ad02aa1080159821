"""What a recipe costs in floating-point operations, and in hours of an A100.

Counting takes seconds for each shape of network and clip, so the counts of the recipes that come with this package are
stored in `counts.json`, which `python -m vc2.training.recount` writes; others are counted when they are asked for.
"""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..networks.config import UNetConfig, as_config
from .errors import RecipeError
from .recipe import Recipe
from .recipe_sections import Learn
from .sources.source import Source

COUNTS = Path(__file__).parent / "counts.json"
A100 = 312e12  # bf16 FLOP/s, by the data sheet
UTILISATION = 0.4  # the share of it that is assumed wherever a rate is not measured (MFU)


def a100_hours(recipe: Recipe) -> float:
    """Of the whole run. Raises CheckpointError where a file that the recipe starts from cannot be read."""
    config, data, step = unet_config(recipe), recipe.data, 0.0  # FLOP of the mean step
    for frames, _, _ in data.lengths:
        share = recipe.image_share(frames)
        if share < 1:
            clip = sample_flops(recipe, config, frames) + encode_flops(recipe, data.clips, frames)
            step += (1 - share) * recipe.batch * clip / len(data.lengths)
        if share > 0:
            images = recipe.batch * (1 if recipe.image_only else frames)
            image = sample_flops(recipe, config, 1) + encode_flops(recipe, data.images, 1)
            step += share * images * image / len(data.lengths)
    return recipe.steps * step / (A100 * UTILISATION) / 3600


def figure(value: float) -> str:
    """For people: a digit after the point, or of what is less than 1, such as the miniature's, the first two."""
    if 0 < value < 0.001:
        return "under 0.001"
    return f"{value:.2g}" if 0 < value < 1 else f"{value:,.1f}"


def unet_config(recipe: Recipe) -> UNetConfig:
    """Of the file that the recipe starts from, where it is there, else of what the recipe says."""
    if recipe.init.unet and recipe.init.unet.is_file():
        return _config_in(recipe.init.unet, recipe.init.unet.stat().st_mtime_ns)
    return as_config(UNetConfig, recipe.networks.unet)


@lru_cache(1)
def _config_in(path: Path, changed: int) -> UNetConfig:
    """Of a checkpoint that was `changed` then: it is asked for at every proposal, and reading it takes seconds."""
    from ..files import checkpoint  # and with it torch, which takes a second to import

    return checkpoint.load(path).config


def sample_flops(recipe: Recipe, config: UNetConfig, frames: int, again: bool = True) -> float:
    """Forward and backward of one sample of this many frames; with `again`, what gradient checkpointing computes a
    second time too.
    """
    key, counts = unet_key(recipe, config, frames), stored_counts()["unet"]
    if key not in counts:
        from . import counting

        counts[key] = counting.count_sample(recipe, config, frames)
    once, *levels = counts[key]
    if again:
        once += sum(levels[level] for level in checkpointed(recipe, len(levels)))
    return once + taught_flops(recipe, config, frames)


def taught_flops(recipe: Recipe, config: UNetConfig, frames: int) -> float:
    """Of a consistency sample: the teacher with the caption and without, and the target, three forward passes; which is
    what training the whole network takes, whose backward pass is two.
    """
    if not recipe.distils:
        return 0.0
    whole = recipe.model_copy(update={"objective": "diffusion", "learn": Learn()})
    return sample_flops(whole, config, frames, again=False)


def holds_teacher(recipe: Recipe) -> bool:
    """Whether the teacher has weights of its own: beside a LoRA it is what the adapters lie beside, unless that is
    quantised or sharded.
    """
    shared = recipe.learn.how == "lora" and recipe.compute.frozen == "float" and recipe.compute.sharding == "none"
    return recipe.distils and not shared


def checkpointed(recipe: Recipe, levels: int) -> tuple[int, ...]:
    """Those of a UNet's levels whose layers are computed again. Raises RecipeError where the recipe names another."""
    where = recipe.compute.gradient_checkpointing
    if isinstance(where, bool):
        return tuple(range(levels)) if where else ()
    if where and where[-1] >= levels:
        raise RecipeError(
            f"compute.gradient_checkpointing: this network has levels 0 to {levels - 1}, found {list(where)}"
        )
    return where


def unet_key(recipe: Recipe, config: UNetConfig, frames: int) -> str:
    """All that the count of a sample depends on."""
    learn, data = recipe.learn, recipe.data
    learns = f"{learn.part} directly" if learn.how == "direct" else f"{learn.part} by LoRA of rank {learn.rank}"
    if learn.targets is not None:
        learns += f" on {', '.join(sorted(learn.targets))}"
    shape = {f.name: getattr(config, f.name) for f in fields(config) if getattr(config, f.name) != f.default}
    return "; ".join(
        (
            f"{frames} of {data.width}x{data.height}",
            learns,
            f"images {'alone ' if recipe.image_only else ''}by {recipe.diffusion.image_temporal}",
            *([json.dumps(shape)] if shape else []),
        )
    )


def encode_flops(recipe: Recipe, source: Source | None, frames: int) -> float:
    """The autoencoder's for one sample; 0 where latents are prepared."""
    if source is None or source.prepared != "no":
        return 0.0
    key, counts = f"{recipe.data.width}x{recipe.data.height}", stored_counts()["autoencoder"]
    if key not in counts:
        from . import counting

        counts[key] = counting.count_encoding(recipe.data.width, recipe.data.height)
    return frames * counts[key]


@lru_cache(1)
def stored_counts() -> dict[str, dict[str, Any]]:
    """FLOP of a sample ("unet": once, and again at each level) and of a frame ("autoencoder"), and in memory those that
    were counted since.
    """
    return json.loads(COUNTS.read_text())
