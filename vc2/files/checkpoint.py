"""Read and write checkpoints in the official layout, memory-mapped and without ever executing a pickle.

Layout: `model.diffusion_model.*` (UNet), `first_stage_model.*` (autoencoder), `cond_stage_model.model.*` (text tower),
and the schedule's buffers, of which `scale_arr` (the dynamic rescale) is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ..networks.autoencoder import AutoencoderKL
from ..networks.config import AutoencoderConfig, TextConfig, UNetConfig
from ..networks.unet import VideoUNet
from ..sampling.schedule import NoiseSchedule
from . import CheckpointError
from .foreign import LORA, foreign_model
from .layout import IGNORED, SCHEDULE_BUFFERS, TEXT, UNET, VAE, schedule_buffers, text_shapes
from .output import check_target, move, scratch_folder
from .tensors import check_numbers, check_shapes, read_metadata, read_tensors

__all__ = [
    "SCHEDULE_BUFFERS",
    "TEXT",
    "UNET",
    "VAE",
    "Checkpoint",
    "CheckpointError",
    "assemble",
    "load",
    "load_part",
    "read_metadata",
    "read_tensors",
    "save",
    "save_part",
    "schedule_buffers",
    "take",
]

Module = TypeVar("Module", bound=nn.Module)


@dataclass
class Checkpoint:
    """What a file holds; `vae` and `text` are None where it has only a UNet.

    Tensors stay memory-mapped until they are used.
    """

    path: Path
    config: UNetConfig
    unet: dict[str, Tensor]
    schedule: NoiseSchedule
    vae: dict[str, Tensor] | None = None
    vae_config: AutoencoderConfig | None = None
    text: dict[str, Tensor] | None = None
    text_config: TextConfig | None = None
    metadata: dict[str, str] = field(default_factory=dict)


def load(path: str | os.PathLike, dtype: torch.dtype | None = None) -> Checkpoint:
    """Load a text-to-video checkpoint, whole or UNet only; every tensor's name, shape and numbers are checked.

    `dtype` converts the weights (None keeps the file's: fp16, bf16, fp32 or fp8). Raises FileNotFoundError or
    CheckpointError.
    """
    path = Path(path)
    state = _without_ignored(read_tensors(path))
    if model := foreign_model(state):
        raise CheckpointError(
            f"{path} is {model}, not a VideoCrafter text-to-video checkpoint; use VideoCrafter2's model.ckpt or one"
            f" finetuned from it{', and the LoRA on top of that' if model == LORA else ''}"
        )
    prefix = next((p for p in (UNET, "diffusion_model.", "") if f"{p}input_blocks.0.0.weight" in state), None)
    if prefix is None:
        top_level = ", ".join(sorted({name.split(".")[0] for name in state})[:6])
        raise CheckpointError(
            f"{path} holds no UNet ({UNET}input_blocks.0.0.weight is missing; top-level names: {top_level}); expected a"
            " VideoCrafter text-to-video checkpoint"
        )
    vae, text = take(state, VAE), take(state, TEXT)
    buffers = {name: state.pop(name) for name in SCHEDULE_BUFFERS & state.keys()}
    unet = take(state, prefix)
    if state:
        raise CheckpointError(
            f"{path}: {_count_of('unexpected', state)}; expected only {UNET}*, {VAE}*, {TEXT}* and schedule buffers"
        )
    check_shapes(path, {**prefixed(UNET, unet), **prefixed(VAE, vae), **prefixed(TEXT, text), **buffers})
    try:
        config = UNetConfig.from_state_dict(unet)
        vae_config = AutoencoderConfig.from_state_dict(vae) if vae else None
        text_config = TextConfig.from_state_dict(text) if text else None
        schedule = _schedule(config, buffers)
    except (ValueError, KeyError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: {reason}") from error
    _check(path, UNET, unet, _shapes(VideoUNet(config, device="meta")))
    if vae_config:
        _check(path, VAE, vae, _shapes(AutoencoderKL(vae_config, device="meta")))
    if text_config:
        _check(path, TEXT, text, text_shapes(text_config))
    for part, tensors in ((UNET, unet), (VAE, vae), (TEXT, text)):
        check_numbers(path, tensors, part)
    if dtype:
        unet, vae, text = ({name: t.to(dtype) for name, t in part.items()} for part in (unet, vae, text))
    return Checkpoint(
        path, config, unet, schedule, vae or None, vae_config, text or None, text_config, read_metadata(path)
    )


def load_part(path: str | os.PathLike | None, prefix: str, asked_by: str) -> dict[str, Tensor]:
    """One part of a checkpoint file (`prefix` is UNET, VAE or TEXT), in float32, without its prefix.

    Raises FileNotFoundError or CheckpointError, whose message names the setting that asked for the file, `asked_by`.
    """
    if path is None:
        raise CheckpointError(f"{asked_by} is not set; give a checkpoint that holds {prefix}*")
    path = Path(path)
    state = take(_without_ignored(read_tensors(path)), prefix)
    if not state:
        raise CheckpointError(
            f"{path} holds no tensors called {prefix}*; {asked_by} must name a whole checkpoint that does"
        )
    check_shapes(path, prefixed(prefix, state))
    check_numbers(path, state, prefix)
    return {name: tensor.float() for name, tensor in state.items()}


def take(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove from `state` the tensors whose names start with `prefix`; returns them without it."""
    return {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's tensors under the names that they have in a whole checkpoint."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def _without_ignored(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(IGNORED)}


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _check(path: Path, prefix: str, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise CheckpointError unless a part's tensors have the names and shapes that its network expects."""
    problems = []
    if missing := [prefix + name for name in expected if name not in tensors]:
        problems.append(_count_of("missing", missing))
    if unexpected := [prefix + name for name in tensors if name not in expected]:
        problems.append(_count_of("unexpected", unexpected))
    for name, shape in expected.items():
        if name in tensors and tuple(tensors[name].shape) != shape:
            problems.append(f"{prefix}{name} has shape {tuple(tensors[name].shape)}, expected {shape}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit: {'; '.join(problems[:4])}. The file is damaged, or of another model"
        )


def _count_of(kind: str, names: Iterable[str]) -> str:
    """How many tensors are missing or unexpected, and the first three: "1 missing tensor (out.2.weight)"."""
    names = sorted(names)
    plural, more = "s" * (len(names) != 1), ", ..." * (len(names) > 3)
    return f"{len(names)} {kind} tensor{plural} ({', '.join(names[:3])}{more})"


def _schedule(config: UNetConfig, buffers: dict[str, Tensor]) -> NoiseSchedule:
    """The file's own `scale_arr`; without one, what the family was trained with.

    Official: `configs/inference_t2v_*.yaml`.
    """
    if "scale_arr" in buffers:
        schedule = NoiseSchedule(scale=buffers["scale_arr"])
        if not (schedule.scale.isfinite() & (schedule.scale > 0)).all():
            lowest = float(schedule.scale.min())
            raise ValueError(f"scale_arr must be positive throughout, found {lowest:g}; the file is damaged")
        return schedule
    return NoiseSchedule({"VideoCrafter2": 0.7, "VideoCrafter1 T2V 1024": 0.3}.get(config.family))


def assemble(module: Module, state: Mapping[str, Tensor]) -> Module:
    """Give a module built on the meta device its tensors without copying them."""
    module.load_state_dict(dict(state), strict=True, assign=True)
    return module


def save(
    path: str | os.PathLike,
    *,
    unet: Mapping[str, Tensor],
    vae: Mapping[str, Tensor] | None = None,
    text: Mapping[str, Tensor] | None = None,
    schedule: NoiseSchedule | None = None,
    dtype: torch.dtype | None = None,
    metadata: dict[str, str] | None = None,
    overwrite: bool = True,
) -> Path:
    """Write a safetensors file in the official layout; `dtype` converts the weights, schedule buffers stay float32.

    Atomic: the file is whole or not there. Raises OSError where it cannot be written, or exists and not `overwrite`.
    """
    tensors = {}
    for prefix, part in ((UNET, unet), (VAE, vae or {}), (TEXT, text or {})):
        for name, tensor in prefixed(prefix, part).items():
            tensors[name] = tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None)
    if schedule is not None:
        tensors |= schedule_buffers(schedule)
    return _write(Path(path), tensors, metadata, overwrite)


def save_part(
    path: str | os.PathLike,
    prefix: str,
    state: Mapping[str, Tensor],
    metadata: dict[str, str] | None = None,
    overwrite: bool = True,
) -> Path:
    """Write one part by itself (`prefix` is UNET, VAE or TEXT), in the precision that it has; otherwise as `save`."""
    tensors = {name: tensor.detach().cpu() for name, tensor in prefixed(prefix, state).items()}
    return _write(Path(path), tensors, metadata, overwrite)


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None, overwrite: bool) -> Path:
    check_target(path, overwrite)
    with scratch_folder(path) as folder:
        temporary = folder / path.name
        contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(contiguous, temporary, metadata={"format": "pt", **(metadata or {})})
        temporary.chmod(0o666 & ~_umask())  # the library writes files that only their owner can read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        move(temporary, path)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
