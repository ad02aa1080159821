"""Saving and resuming a run: one file a checkpoint, written to a temporary name and renamed; the newest few stay.

A checkpoint holds what learns (weights, their average, the optimizer's state), the step, the counts of what was
skipped, and fingerprints of the weights and the data that the run began with. Random numbers and the position in the
data need no saving: both follow from (seed, step), so a resumed run draws what the uninterrupted one drew. The same
file serves any number of processes, sharded or not.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from ..files.output import WINDOWS
from .errors import RecipeError
from .parallel import unsharded
from .recipe import Recipe

SUFFIX = ".pt"


def whole(values: Mapping[str, Any], keep: bool) -> dict[str, Any]:
    """Tensors as one, on the CPU, also where their parts lie on several processes. Every process must ask, and those
    that do not `keep` them get none. Plain numbers, such as the step that bitsandbytes counts, stay as they are.
    """
    out = {}
    for name, value in values.items():
        full = unsharded(value)
        if keep:
            out[name] = full.detach().cpu() if isinstance(full, Tensor) else full
    return out


def like(value: Any, model: Tensor) -> Any:
    """A copy of a tensor on the device of `model`, and sharded if that is; a plain number as it is."""
    if not isinstance(value, Tensor):
        return value
    tensor = value.to(model.device, copy=True)
    if isinstance(model, DTensor) and tensor.shape == model.shape:
        return distribute_tensor(tensor, model.device_mesh, model.placements)
    return tensor


def gather(model: nn.Module, optimizer: torch.optim.Optimizer, keep: bool) -> dict[str, Any]:
    """What learns, whole, by parameter name: "model" and "optimizer". Every process must call it, and those that do not
    `keep` it get nothing.
    """
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    states = {name: whole(optimizer.state[p], keep) for name, p in learning.items() if p in optimizer.state}
    return {"model": whole(learning, keep), "optimizer": states}


@torch.no_grad()
def scatter(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put what `gather` returned back: every process gives the whole and takes its part."""
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        p.copy_(like(state["model"][name], p))
        if name in state["optimizer"]:
            optimizer.state[p] = {k: like(v, p) for k, v in state["optimizer"][name].items()}


def save(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write `step-XXXXXXXX.pt`, whole or not at all, and remove all but the newest `keep`. Raises OSError, and leaves
    what was there as it was.
    """
    path = folder / f"step-{step:08d}{SUFFIX}"
    temporary = folder / f".{path.name}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
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
            f"{path} could not be written ({error}); {newest}. Make room or give another folder with --runs, then run"
            " the same command to go on"
        ) from error
    for old in all_steps(folder)[:-keep]:
        old.unlink()
    return path


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


def all_steps(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, oldest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"))


def recipe_of(run: Path) -> Recipe:
    """The recipe that the run in a folder was trained with. Raises RecipeError where there is no checkpoint."""
    state = latest(run / "checkpoints")
    if state is None:
        raise RecipeError(f"{run} is no run: there are no checkpoints in it")
    return Recipe.model_validate_json(state["recipe"])


def latest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint's content, or None."""
    files = all_steps(folder)
    return torch.load(files[-1], map_location="cpu", weights_only=True, mmap=True) if files else None
