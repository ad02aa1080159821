"""`python -m vc2.training export`: a run's weights as files for ComfyUI, or for others to build on."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ..files import checkpoint as files
from ..files import lora as lora_files
from ..files.merge import merge
from ..files.tensors import PRECISIONS
from ..sampling.schedule import NoiseSchedule
from ..sampling.turbo import PLAIN
from . import checkpoint, lora
from .errors import RecipeError
from .history import History
from .initialise import fingerprint_of, load_autoencoder, load_text, sampling_of, start_unet
from .partition import temporal_names
from .recipe import Recipe


def step_named(folder: Path, name: str | None) -> int | None:
    """The step that `--step` means, a number or "best", of the run in `folder`; None: the newest. Raises RecipeError
    where nothing was held out, or for what is neither.
    """
    if name is None:
        return None
    if name != "best":
        if not name.isdecimal():
            raise RecipeError(f"--step {name}: expected the number of a step, or best")
        return int(name)
    history = History(folder)
    best = history.best()
    if best is None:
        raise RecipeError(
            f"{history.path} has no held-out loss, by which a step would be the best; name a step (validation.every and"
            " data.held_out decide what is held out)"
        )
    return best


def export(
    recipe: Recipe, folder: Path, target: Path, form: str, dtype: str, raw: bool, step: int | None = None
) -> Path:
    """Write the weights of a checkpoint in `folder`, of `step` or the newest, as `target`: the averages, or if `raw`
    that step's own.

    `form`: "full", a whole checkpoint in the official layout; "spatial", the change of theta_S alone, as `.diff`
    tensors that a stock LoRA loader adds to the model that the run started from; "lora", a LoRA run's adapters. Raises
    RecipeError where the run has no such thing, or no checkpoint, or where it was trained by another recipe or on other
    weights than are there now.
    """
    if not recipe.of_the_unet:
        raise RecipeError(
            f"{recipe.name} trains the miniature's {recipe.objective}; its run wrote {folder / 'model.safetensors'},"
            " and there is no other form of it"
        )
    state = checkpoint.load(folder / "checkpoints", step)
    if target.suffix != ".safetensors":
        raise RecipeError(f"{target}: exports are .safetensors files")
    if changed := recipe.differences(state["recipe"]):
        raise RecipeError(
            f"{folder} was trained with another {', '.join(changed)}; name the run's folder instead of a recipe: python"
            f" -m vc2.training export {folder}"
        )
    trained: dict[str, Tensor] = state["model"] if raw else state["ema"]["shadow"]
    _, adapters = lora.split(trained)
    if form == "lora":
        if not adapters:
            raise RecipeError(f"{recipe.name} learns directly and has no LoRA; export it as full or spatial")
        return write_lora(target, recipe, trained, state["step"], PRECISIONS[dtype])
    if form == "spatial":
        return write_difference(target, recipe, trained, state["step"], PRECISIONS[dtype], state["start"])
    return write_full(target, recipe, trained, state["step"], PRECISIONS[dtype], state["start"])


def write_full(
    target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype, start: dict[str, str]
) -> Path:
    """A whole checkpoint in the official layout. What did not learn is read again from the files that the run started
    from, which must still have the fingerprints of `start`. Raises RecipeError where they have not.
    """
    weights = {
        "unet": start_unet(recipe).state_dict(),
        "autoencoder": load_autoencoder(recipe.init.autoencoder_file).state_dict(),
        "text": load_text(recipe.init.text_file).state_dict(),
    }
    for name, tensors in weights.items():
        _verify(name, tensors, start)
    return files.save(
        target,
        unet=with_trained(weights["unet"], trained, recipe),
        vae=weights["autoencoder"],
        text=weights["text"],
        schedule=PLAIN if recipe.distils else NoiseSchedule(recipe.diffusion.scale_end),
        dtype=dtype,
        metadata={**_origin(recipe, step), "sampling": json.dumps(sampling_of(recipe))},
    )


def write_lora(target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype) -> Path:
    """A LoRA run's adapters."""
    return lora_files.save(
        target,
        {name: tensor.to(dtype) for name, tensor in lora.to_file(trained, recipe.learn.alpha).items()},
        _origin(recipe, step),
    )


def _origin(recipe: Recipe, step: int) -> dict[str, str]:
    """Metadata: which recipe and step a file comes from."""
    return {"recipe": recipe.model_dump_json(), "step": str(step)}


def with_trained(start: dict[str, Tensor], trained: dict[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
    """A UNet's tensors, from those it started with and what a run has trained: adapters merged in, others in their
    place.
    """
    own, adapters = lora.split(trained)
    return merge({**start, **own}, lora.to_file(adapters, recipe.learn.alpha))


def _verify(name: str, weights: dict[str, Tensor], start: dict[str, str]) -> None:
    if fingerprint_of(weights) != start[name]:
        raise RecipeError(
            f"init.{name}: the weights there are not those that the run started from, which the export needs again; put"
            " them back"
        )


def write_difference(
    target: Path, recipe: Recipe, trained: dict[str, Tensor], step: int, dtype: torch.dtype, start: dict[str, str]
) -> Path:
    """The change of theta_S. Raises RecipeError where theta_T has changed too, or nothing has."""
    unet = start_unet(recipe)
    before, temporal = unet.state_dict(), temporal_names(unet)
    _verify("unet", before, start)
    after, changes = with_trained(before, trained, recipe), {}
    for name, tensor in after.items():
        change = tensor.float() - before[name].float()
        if not change.any():
            continue
        if name in temporal:
            raise RecipeError(
                f"{target}: {name} is temporal and has changed too; a spatial file would lose that. Export the run as"
                " full"
            )
        stem, _, leaf = name.rpartition(".")
        changes[f"{lora_files.PREFIX}{stem}.{'diff' if leaf == 'weight' else 'diff_b'}"] = change.to(dtype)
    if not changes:
        raise RecipeError(f"{target}: no spatial weight has changed")
    return lora_files.save(target, changes, _origin(recipe, step))
