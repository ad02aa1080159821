"""Saving and resuming a run: one file a checkpoint, written to a temporary name and renamed; the newest few stay.
When a run saves, and that it goes on meanwhile, is `saving`'s and the loop's.

A checkpoint holds what learns (weights, their average, the optimizer's state), the step, the counts of what was
skipped, and fingerprints of the weights and the data that the run began with. Random numbers and the position in the
data need no saving: both follow from (seed, step), so a resumed run draws what the uninterrupted one drew. The same
file serves any number of processes, sharded or not.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..files.output import WINDOWS
from .data.order import NEWEST
from .errors import RecipeError
from .parallel import unsharded
from .recipe import Recipe

log = logging.getLogger(__name__)

SUFFIX = ".pt"


def on_host(tensor: Tensor) -> Tensor:
    """On the CPU; itself where it is there already."""
    return tensor.detach().cpu()


def whole(values: Mapping[str, Any], keep: bool, copy: Callable[[Tensor], Tensor] = on_host) -> dict[str, Any]:
    """Tensors as one, on the CPU (by `copy`), also where their parts lie on several processes. Every process must ask,
    and those that do not `keep` them get none. Plain numbers, such as the step that bitsandbytes counts, stay as they
    are.
    """
    out = {}
    for name, value in values.items():
        full = unsharded(value)
        if keep:
            out[name] = copy(full) if isinstance(full, Tensor) else full
    return out


def like(value: Any, model: Tensor) -> Any:
    """A copy of a tensor on the device of `model`, and sharded if that is; a plain number as it is."""
    if not isinstance(value, Tensor):
        return value
    tensor = value.to(model.device, copy=True)
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor, model.device_mesh, model.placements)
    return tensor


def gather(
    model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool, copy: Callable[[Tensor], Tensor] = on_host
) -> dict[str, Any]:
    """What learns, whole, by parameter name: "model" and "optimizer". Every process must call it, and those that do not
    `keep` it get nothing.
    """
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    states = {name: whole(optimizer.state[p], keep, copy) for name, p in learning.items() if p in optimizer.state}
    return {"model": whole(learning, keep, copy), "optimizer": states}


@torch.no_grad()
def scatter(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put what `gather` returned back: every process gives the whole and takes its part."""
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        p.copy_(like(state["model"][name], p))
        if name in state["optimizer"]:
            optimizer.state[p] = {k: like(v, p) for k, v in state["optimizer"][name].items()}


def save(
    folder: Path, step: int, state: dict[str, Any], keep: int, stays: Callable[[int], bool] = lambda step: False
) -> Path:
    """Write `step-XXXXXXXX.pt`, whole or not at all, and remove all but the newest `keep` and those whose step `stays`.
    Raises OSError, and leaves what was there as it was.
    """
    path = path_of(folder, step)
    temporary = folder / f".{path.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file, _without_checksums():
            torch.save({"step": step, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(folder)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        before = all_steps(folder)
        newest = f"the checkpoint before it, {before[-1]}, is whole" if before else "there is none before it"
        raise OSError(
            f"{path} could not be written ({error}); {newest}. Make room, or move the folder of runs, its cache"
            " with it, to where there is some and name that with --runs; then run the same command to go on"
        ) from error
    for old in all_steps(folder)[:-keep]:
        if stays(step_of(old)):
            continue
        try:
            old.unlink(missing_ok=True)
        except PermissionError as error:  # Windows removes no file that someone reads, such as an export beside the run
            log.warning("%s is in use and stays for now (%s); the next save tries again", old, error)
    return path


@contextlib.contextmanager
def _without_checksums() -> Iterator[None]:
    """Those of the zip that torch.save writes take longer than the disk, and torch.load reads none of them."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


def clean(folder: Path) -> None:
    """Remove what a process left that was killed while it saved."""
    for leftover in folder.glob(".step-*.tmp"):
        leftover.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last; Windows opens no folder, and its file system sees to that."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies, if it is there."""
    return folder / f"step-{step:08d}{SUFFIX}"


def step_of(path: Path) -> int:
    """The step of a checkpoint in its name."""
    return int(path.stem.removeprefix("step-"))


def all_steps(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def recipe_of(run: Path, step: int | None = None) -> Recipe:
    """The recipe that the run in a folder was trained with, up to `step` or its newest checkpoint. Raises RecipeError
    where there is no such checkpoint.
    """
    if not all_steps(run / "checkpoints"):
        raise RecipeError(f"{run} is no run: there are no checkpoints in it")
    return Recipe.model_validate_json(load(run / "checkpoints", step)["recipe"])


def as_begun(recipe: Recipe, run: Path) -> Recipe:
    """A recipe that leaves `data.order` open, with that of the run in a folder: what it began with, or the newest."""
    if recipe.data.order is not None:
        return recipe
    state = latest(run / "checkpoints")
    try:
        order = Recipe.model_validate_json(state["recipe"]).data.order if state else NEWEST
    except ValidationError:  # whoever compares the two recipes will say so
        return recipe
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"order": order})})


def latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's content, or None."""
    return load(folder) if all_steps(folder) else None


def load(folder: Path, step: int | None = None) -> dict[str, Any]:
    """The content of the checkpoint of `step`, or of the newest. Raises RecipeError where it is not there."""
    files = all_steps(folder)
    if not files:
        raise RecipeError(f"{folder} holds no checkpoint; run the recipe first")
    path = files[-1] if step is None else path_of(folder, step)
    if path not in files:
        raise RecipeError(
            f"{folder} holds no checkpoint of step {step}, but of {', '.join(str(step_of(file)) for file in files)};"
            " save_every, keep and keep_every decide which there are"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (
        RuntimeError,
        ValueError,
        EOFError,
        UnpicklingError,
    ) as error:  # as torch says that it is none, or half of one
        others = "the run then goes on from the checkpoint before it" if len(files) > 1 else "there is no other"
        raise RecipeError(
            f"{path} is not a whole checkpoint ({str(error).splitlines()[0]}); remove it: {others}"
        ) from error
