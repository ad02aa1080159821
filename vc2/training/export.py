"""`python -m vc2.training export`: a run's weights as files for ComfyUI, or for others to build on."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import torch
from torch import Tensor

from .. import checkpoint as files
from .. import lora as lora_files
from ..schedule import NoiseSchedule
from . import checkpoint, lora
from .config import Recipe, RecipeError
from .initialise import start_unet
from .partition import temporal_names

log = logging.getLogger(__name__)
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
        return lora_files.save(target, {n: t.to(DTYPES[dtype]) for n, t in lora.to_file(adapters).items()})
    start = start_unet(recipe.init, recipe.networks.unet)
    before, temporal = start.state_dict(), temporal_names(start)
    after = lora_files.merge(before, lora.to_file(adapters)) if adapters else {**before, **trained}
    if form == "spatial":
        return _difference(target, before, after, temporal, dtype)
    parts = {
        "vae": files.load_part(recipe.init.autoencoder_file, files.VAE, "init.autoencoder"),
        "text": files.load_part(recipe.init.text_file, files.TEXT, "init.text"),
    }
    metadata = {"recipe": recipe.model_dump_json(), "sampling": json.dumps(recipe.sampling), "step": str(state["step"])}
    return files.save(target, unet=after, schedule=NoiseSchedule(recipe.diffusion.scale_end), dtype=DTYPES[dtype], metadata=metadata, **parts)


def _difference(target: Path, before: dict[str, Tensor], after: dict[str, Tensor], temporal: frozenset[str], dtype: str) -> Path:
    out = {}
    for name, tensor in after.items():
        change = tensor.float() - before[name].float()
        if not change.any():
            continue
        if name in temporal:
            raise RecipeError(f"{target}: {name} is temporal and has changed too; a spatial file would lose that. Export the run as full")
        stem, _, leaf = name.rpartition(".")
        out[f"{lora_files.PREFIX}{stem}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change.to(DTYPES[dtype])
    if not out:
        raise RecipeError(f"{target}: no spatial weight has changed")
    return lora_files.save(target, out)
