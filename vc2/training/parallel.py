"""One process or many: accelerate starts them and averages gradients (DDP); `compute.sharding: full` splits weights and
optimizer instead (FSDP).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, ProjectConfiguration
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from ..networks.unet import Block
from . import kernels
from .errors import RecipeError
from .recipe import Recipe
from .together import listen

# Others wait while the first process writes a checkpoint or exports; by default they give up after ten minutes.
PATIENCE = timedelta(minutes=30)


def require(recipe: Recipe, processes: int) -> None:
    """Raise RecipeError for what cannot run on so many processes, or for lack of a library."""
    share, rest = divmod(recipe.batch, processes)
    micro = recipe.compute.micro_batch or max(1, share)
    if rest or share % micro:
        raise RecipeError(
            f"batch {recipe.batch} does not divide into {processes} processes x compute.micro_batch {micro}; make it a"
            f" multiple of {processes * micro}"
        )
    if recipe.optimizer.kind == "adamw8bit":
        if recipe.compute.sharding == "full":
            raise RecipeError("compute.sharding full and optimizer.kind adamw8bit do not go together; leave one out")
        if not importlib.util.find_spec("bitsandbytes"):
            raise RecipeError("optimizer.kind adamw8bit needs bitsandbytes; pip install bitsandbytes, or use adamw")
    if recipe.compute.compile:
        kernels.require_compiler()
    if recipe.compute.frozen == "int8":
        if recipe.compute.sharding == "full":
            raise RecipeError("compute.sharding full and compute.frozen int8 do not go together; leave one out")
        if not importlib.util.find_spec("bitsandbytes"):
            raise RecipeError("compute.frozen int8 needs bitsandbytes; pip install bitsandbytes, or use float")
    available = sorted(tracker.value for tracker in get_available_trackers())
    if missing := [name for name in recipe.trackers if name not in available]:
        raise RecipeError(
            f"trackers: {', '.join(missing)} cannot be used here; install it, or use some of those that are there:"
            f" {', '.join(available)}"
        )


def start(recipe: Recipe, folder: Path) -> Accelerator:
    """Joins the other processes, if any. Raises RecipeError as `require` does."""
    # In a step of images, temporal layers that they skip have no gradient, nor have the temporal q and k.
    some_unused = recipe.data.clips is not None and recipe.data.images is not None and recipe.learn.part != "spatial"
    ddp = DistributedDataParallelKwargs(
        find_unused_parameters=some_unused, broadcast_buffers=False, gradient_as_bucket_view=True
    )
    handlers = [ddp, InitProcessGroupKwargs(timeout=PATIENCE)]
    project = ProjectConfiguration(str(folder), logging_dir=str(folder / "events"))
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=handlers, project_config=project)
    listen()
    require(recipe, accelerator.num_processes)
    return accelerator


def distribute(model: nn.Module, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """The network as it is trained: itself, wrapped for DDP, or sharded in place."""
    if recipe.compute.sharding == "none" or accelerator.num_processes == 1:
        return accelerator.prepare_model(model)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    bf16 = recipe.compute.precision == "bf16"
    policy = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    )
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    # Resharded too, which the outermost is not by default: after a validation its parameters would not be those that
    # the optimizer knows.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return model


def accumulate(model: nn.Module, accelerator: Accelerator, last: bool) -> AbstractContextManager:
    """Gradients travel between processes only with the last micro-batch of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(model)


def autocast(recipe: Recipe, accelerator: Accelerator) -> torch.autocast:
    """The recipe's precision. Ours and not accelerate's, whose setting is one for the life of a process."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.compute.precision == "bf16")


def mean(values: Mapping[str, Tensor | float], accelerator: Accelerator) -> dict[str, float]:
    """The mean over all processes of each value, in one message; every process must have the same names."""
    numbers = [torch.as_tensor(value, dtype=torch.float32, device=accelerator.device) for value in values.values()]
    return dict(zip(values, accelerator.reduce(torch.stack(numbers), "mean").tolist(), strict=True))


def gather_numbers(number: int, accelerator: Accelerator) -> list[int]:
    """Each process's number."""
    return accelerator.gather(torch.tensor([number], device=accelerator.device)).tolist()


def unsharded(tensor: Tensor) -> Tensor:
    """The whole of a tensor whose parts may lie on several processes; every process must ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
