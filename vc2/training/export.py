"""`python -m vc2.training export`: a run's weights as files for ComfyUI, or for others to build on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint as files
from .. import lora as lora_files
from ..schedule import NoiseSchedule
from . import checkpoint, lora
from .config import Recipe, RecipeError
from .initialise import sampling_of, start_unet
from .partition import temporal_names

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
FORMS = ("full", "spatial", "lora")


def export(recipe: Recipe, folder: Path, target: Path, form: str, dtype: str, raw: bool) -> Path:
    """Write the newest checkpoint of the run in `folder` as `target`; its averaged weights, or those of the last step if `raw`.

    `form`: "full", a whole checkpoint in the official layout; "spatial", the change of theta_S alone, as `.diff` tensors that a stock LoRA loader adds to the
    model that the run started from; "lora", a LoRA run's adapters. Raises RecipeError where the run has no such thing, or no checkpoint.
    """
    state = checkpoint.latest(folder / "checkpoints")
    if state is None:
        raise RecipeError(f"{folder / 'checkpoints'} holds no checkpoint; run the recipe first")
    if target.suffix != ".safetensors":
        raise RecipeError(f"{target}: exports are .safetensors files")
    trained: dict[str, Tensor] = state["model"] if raw else state["ema"]["shadow"]
    _, adapters = lora.split(trained)
    if form == "lora":
        if not adapters:
            raise RecipeError(f"{recipe.name} learns directly and has no LoRA; export it as full or spatial")
        return write_lora(target, recipe, trained, state["step"], DTYPES[dtype])
    if form == "spatial":
        return _difference(target, recipe, trained, state["step"], DTYPES[dtype])
    return write_full(target, recipe, trained, state["step"], DTYPES[dtype])


def write_full(target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype) -> Path:
    """A whole checkpoint in the official layout. What did not learn is read again from where the run started."""
    parts = {
        "vae": files.load_part(recipe.init.autoencoder_file, files.VAE, "init.autoencoder"),
        "text": files.load_part(recipe.init.text_file, files.TEXT, "init.text"),
    }
    unet = with_trained(start_unet(recipe).state_dict(), trained)
    metadata = {**_origin(recipe, step), "sampling": json.dumps(sampling_of(recipe))}
    return files.save(target, unet=unet, schedule=NoiseSchedule(recipe.diffusion.scale_end), dtype=dtype, metadata=metadata, **parts)


def write_lora(target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype) -> Path:
    """A LoRA run's adapters."""
    return lora_files.save(target, {name: tensor.to(dtype) for name, tensor in lora.to_file(trained).items()}, _origin(recipe, step))


def _origin(recipe: Recipe, step: int) -> dict[str, str]:
    """What a file says of where it comes from."""
    return {"recipe": recipe.model_dump_json(), "step": str(step)}


def with_trained(start: dict[str, Tensor], trained: dict[str, Tensor]) -> dict[str, Tensor]:
    """A UNet's tensors, from those it started with and what a run has trained: adapters merged in, others in their place."""
    own, adapters = lora.split(trained)
    return lora_files.merge({**start, **own}, lora.to_file(adapters))


def _difference(target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype) -> Path:
    start = start_unet(recipe)
    before, temporal = start.state_dict(), temporal_names(start)
    after, out = with_trained(before, trained), {}
    for name, tensor in after.items():
        change = tensor.float() - before[name].float()
        if not change.any():
            continue
        if name in temporal:
            raise RecipeError(f"{target}: {name} is temporal and has changed too; a spatial file would lose that. Export the run as full")
        stem, _, leaf = name.rpartition(".")
        out[f"{lora_files.PREFIX}{stem}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change.to(dtype)
    if not out:
        raise RecipeError(f"{target}: no spatial weight has changed")
    return lora_files.save(target, out, _origin(recipe, step))
