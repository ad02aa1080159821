"""One process or many: accelerate starts them and averages gradients (DDP); `compute.sharding: full` splits weights and optimizer instead (FSDP)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from ..unet import Block
from .config import Recipe, RecipeError

# Others wait while the first process writes a checkpoint; by default they give up after ten minutes.
PATIENCE = timedelta(hours=2)


def start(recipe: Recipe, folder: Path) -> Accelerator:
    """Joins the other processes, if any. Raises RecipeError where the batch does not divide among them."""
    # On a step of images the temporal layers that they pass by have no gradient.
    both = recipe.data.clips is not None and recipe.data.images is not None
    some_unused = both and recipe.learn.part != "spatial" and recipe.diffusion.image_temporal != "full"
    ddp = DistributedDataParallelKwargs(find_unused_parameters=some_unused, broadcast_buffers=False, gradient_as_bucket_view=True)
    handlers = [ddp, InitProcessGroupKwargs(timeout=PATIENCE)]
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=handlers, log_with=list(recipe.trackers) or None, project_dir=folder)
    world = accelerator.num_processes
    share, rest = divmod(recipe.batch, world)
    micro = recipe.compute.micro_batch or share
    if rest or share % micro:
        raise RecipeError(f"batch {recipe.batch} does not divide into {world} processes x compute.micro_batch {micro}; make it a multiple of {world * micro}")
    if recipe.compute.sharding == "full" and recipe.optimizer.kind == "adamw8bit":
        raise RecipeError("compute.sharding full and optimizer.kind adamw8bit do not go together; leave one out")
    return accelerator


def distribute(model: nn.Module, recipe: Recipe, accelerator: Accelerator) -> nn.Module:
    """The network as it is trained: itself, wrapped for DDP, or sharded in place."""
    if recipe.compute.sharding == "none" or accelerator.num_processes == 1:
        return accelerator.prepare_model(model)
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    bf16 = recipe.compute.precision == "bf16"
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32) if bf16 else MixedPrecisionPolicy()
    for module in model.modules():
        if isinstance(module, Block):
            fully_shard(module, mesh=mesh, mp_policy=policy)
    # Resharded too, which the outermost is not by default: after a validation its parameters would not be those that the optimizer knows.
    fully_shard(model, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    return model


def accumulate(model: nn.Module, accelerator: Accelerator, last: bool) -> AbstractContextManager:
    """Gradients travel between processes only with the last part of a step."""
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(last)
        return nullcontext()
    return nullcontext() if last else accelerator.no_sync(model)


def autocast(recipe: Recipe, accelerator: Accelerator) -> torch.autocast:
    """The recipe's precision. Ours and not accelerate's, whose setting is one for the life of a process."""
    return torch.autocast(accelerator.device.type, torch.bfloat16, enabled=recipe.compute.precision == "bf16")
