"""Read and write checkpoints in the official layout, memory-mapped and without ever executing a pickle.

Layout: `model.diffusion_model.*` (UNet), `first_stage_model.*` (autoencoder), `cond_stage_model.model.*` (text tower),
and the schedule's buffers, of which `scale_arr` (the dynamic rescale) is read.
"""

from __future__ import annotations

import os
import pickle
import re
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..networks.config import AutoencoderConfig, TextConfig, UNetConfig, UnsupportedCheckpointError
from ..sampling.schedule import TIMESTEPS, NoiseSchedule

UNET, VAE, TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.model."
Module = TypeVar("Module", bound=nn.Module)
SCHEDULE_BUFFERS = {
    "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
    "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod", "posterior_variance",
    "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2", "scale_arr", "logvar",
}  # fmt: skip
# In the files but not in the networks: LDM's own EMA copy and training-time leftovers.
IGNORED = (
    "model_ema.",
    "first_stage_model.loss.",
    "cond_stage_model.model.attn_mask",
    "cond_stage_model.model.visual.",
)


class CheckpointError(ValueError):
    """A file that cannot be loaded; the message names the file, what was found, what was expected and what to do."""


@dataclass
class Checkpoint:
    """What a file holds. `vae` and `text` are None where the file has only a UNet; tensors stay memory-mapped until
    they are used.
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


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """All tensors of a .safetensors, .ckpt, .pt or .pth file, by name, memory-mapped.

    Wrappings are taken off: Lightning's `state_dict`, DeepSpeed's `module` with its `_forward_module.` prefix. Raises
    FileNotFoundError or CheckpointError; a pickle that holds anything but tensors and plain containers is refused
    unread.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such checkpoint file")
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except SafetensorError as error:
            raise CheckpointError(
                f"{path} ({path.stat().st_size} bytes) is not a complete safetensors file ({error}); download it again"
            ) from error
    state = read_pickle(path)
    for wrapping in ("state_dict", "module"):
        if isinstance(state, Mapping) and isinstance(state.get(wrapping), Mapping):
            state = state[wrapping]
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path} holds a {type(state).__name__}; expected a state dict (tensor name -> tensor)")
    tensors = {
        str(name).removeprefix("_forward_module."): value for name, value in state.items() if isinstance(value, Tensor)
    }
    if not tensors:
        raise CheckpointError(
            f"{path} holds no tensors; found the keys {', '.join(map(str, list(state)[:5])) or '(none)'}"
        )
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    """A safetensors file's free text; empty for other files."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, "pt") as file:
        return file.metadata() or {}


def read_pickle(path: Path) -> Any:
    """What torch.save wrote, tensors memory-mapped, as long as it holds tensors and plain containers alone. Raises
    CheckpointError.
    """
    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # torch.save's format from before 1.6 cannot be mapped
                raise
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"(?:GLOBAL|class|type) ([\w.]+\.[\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} holds more than tensors ({found.group(1)}), and loading that could run code. Nothing was"
                " executed. Get the weights as .safetensors, or a .ckpt with the state dict only"
            ) from error
        with open(path, "rb") as file:
            start = file.read(24)
        raise CheckpointError(
            f"{path} is not a PyTorch checkpoint (it starts with {start!r}); download it again"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, IndexError, KeyError, struct.error) as error:
        raise CheckpointError(
            f"{path} ({path.stat().st_size} bytes) is truncated or not a PyTorch checkpoint: {_first_sentence(error)}"
            " Download it again"
        ) from error


def _first_sentence(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0].rstrip(".") + "."


def load(path: str | os.PathLike, dtype: torch.dtype | None = None) -> Checkpoint:
    """Load a text-to-video checkpoint, whole or UNet only, and check every tensor's name and shape.

    `dtype` converts floating-point weights (None keeps the file's: fp16, bf16 or fp32). Raises FileNotFoundError or
    CheckpointError.
    """
    path = Path(path)
    state = {name: t for name, t in read_tensors(path).items() if not name.startswith(IGNORED)}
    prefix = next((p for p in (UNET, "diffusion_model.", "") if f"{p}input_blocks.0.0.weight" in state), None)
    if prefix is None:
        found = ", ".join(sorted({name.split(".")[0] for name in state})[:6])
        raise CheckpointError(
            f"{path} holds no UNet ({UNET}input_blocks.0.0.weight is missing; top-level names: {found}); expected a"
            " VideoCrafter text-to-video checkpoint"
        )

    vae, text = take(state, VAE), take(state, TEXT)
    unet = take(state, prefix) if prefix else {n: state.pop(n) for n in list(state) if n not in SCHEDULE_BUFFERS}
    buffers = {name: state.pop(name) for name in list(state) if name in SCHEDULE_BUFFERS}
    if state:
        raise CheckpointError(
            f"{path}: {_listing('unexpected', state)}; expected only {UNET}*, {VAE}*, {TEXT}* and schedule buffers"
        )
    try:
        config = UNetConfig.from_state_dict(unet)
        vae_config = AutoencoderConfig.from_state_dict(vae) if vae else None
        text_config = TextConfig.from_state_dict(text) if text else None
        schedule = _schedule(config, buffers)
    except (ValueError, KeyError) as error:
        reason = f"tensor {error} is missing" if isinstance(error, KeyError) else str(error)
        raise CheckpointError(f"{path}: {reason}") from error
    for part, given, network in _networks(unet, config, vae, vae_config, text, text_config):
        _check(path, part, given, network)
    if dtype:
        unet, vae, text = (
            {n: t.to(dtype) if t.is_floating_point() else t for n, t in part.items()} for part in (unet, vae, text)
        )
    return Checkpoint(
        path, config, unet, schedule, vae or None, vae_config, text or None, text_config, read_metadata(path)
    )


def take(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove from `state` the tensors whose names start with `prefix`; returns them without it."""
    return {name.removeprefix(prefix): state.pop(name) for name in list(state) if name.startswith(prefix)}


def _networks(unet, config, vae, vae_config, text, text_config):
    """(name prefix, given tensors, the network on the meta device) for each part that the file has."""
    from ..networks.autoencoder import AutoencoderKL
    from ..networks.unet import VideoUNet

    yield UNET, unet, VideoUNet(config, device="meta")
    if vae:
        yield VAE, vae, AutoencoderKL(vae_config, device="meta")
    if text:
        yield TEXT, text, _text_shapes(text_config)


def _text_shapes(config: TextConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the text tower; written out so that a host without open_clip can check a checkpoint."""
    w = config.width
    shapes: dict[str, tuple[int, ...]] = {}
    shapes["token_embedding.weight"] = (config.vocab_size, w)
    shapes["positional_embedding"] = (config.context_length, w)
    shapes["text_projection"], shapes["logit_scale"] = (w, w), ()
    shapes["ln_final.weight"] = shapes["ln_final.bias"] = (w,)
    for i in range(config.layers):
        block = f"transformer.resblocks.{i}."
        for name, out, into in (
            ("attn.in_proj_", 3 * w, w),
            ("attn.out_proj.", w, w),
            ("mlp.c_fc.", 4 * w, w),
            ("mlp.c_proj.", w, 4 * w),
        ):
            shapes[f"{block}{name}weight"], shapes[f"{block}{name}bias"] = (out, into), (out,)
        for name in ("ln_1.weight", "ln_1.bias", "ln_2.weight", "ln_2.bias"):
            shapes[block + name] = (w,)
    return shapes


def _check(path: Path, prefix: str, given: dict[str, Tensor], network: nn.Module | dict[str, tuple[int, ...]]) -> None:
    expected = (
        network if isinstance(network, dict) else {name: tuple(t.shape) for name, t in network.state_dict().items()}
    )
    problems = []
    if missing := [prefix + name for name in expected if name not in given]:
        problems.append(_listing("missing", missing))
    if unexpected := [prefix + name for name in given if name not in expected]:
        problems.append(_listing("unexpected", unexpected))
    for name, shape in expected.items():
        if name in given and tuple(given[name].shape) != shape:
            problems.append(f"{prefix}{name} has shape {tuple(given[name].shape)}, expected {shape}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit: {'; '.join(problems[:4])}. The file is damaged, or of another model"
        )


def _listing(kind: str, names) -> str:
    names = sorted(names)
    return f"{len(names)} {kind} tensor{'s' * (len(names) != 1)} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"


def _schedule(config: UNetConfig, buffers: dict[str, Tensor]) -> NoiseSchedule:
    """The file's own `scale_arr`; without one, what the family was trained with (official
    `configs/inference_t2v_*.yaml`).
    """
    if "scale_arr" in buffers:
        return NoiseSchedule(scale=buffers["scale_arr"])
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
) -> Path:
    """Write a safetensors file in the official layout; `dtype` converts the weights, schedule buffers stay float32.
    Atomic: the file is whole or not there.
    """
    tensors = {}
    for prefix, part in ((UNET, unet), (VAE, vae or {}), (TEXT, text or {})):
        for name, tensor in part.items():
            tensors[prefix + name] = (
                tensor.detach().to("cpu", dtype if tensor.is_floating_point() else None).contiguous()
            )
    if schedule is not None:
        tensors |= schedule_buffers(schedule)
    return _write(Path(path), tensors, metadata)


def save_part(
    path: str | os.PathLike, prefix: str, state: Mapping[str, Tensor], metadata: dict[str, str] | None = None
) -> Path:
    """Write one part by itself (`prefix` is UNET, VAE or TEXT), in the precision that it has. Atomic."""
    return _write(
        Path(path), {prefix + name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, metadata
    )


def load_part(path: str | os.PathLike | None, prefix: str, asked_by: str) -> dict[str, Tensor]:
    """One part of a checkpoint file, in float32, without its prefix. `asked_by` names the setting for the error
    messages.
    """
    if path is None:
        raise CheckpointError(f"{asked_by} is not set; give a checkpoint that holds {prefix}*")
    state = take({name: t for name, t in read_tensors(path).items() if not name.startswith(IGNORED)}, prefix)
    if not state:
        raise CheckpointError(
            f"{path} holds no tensors called {prefix}*; {asked_by} must name a whole checkpoint that does"
        )
    return {name: tensor.float() for name, tensor in state.items()}


def _write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        save_file(tensors, temporary, metadata={"format": "pt", **(metadata or {})})
        temporary.chmod(0o666 & ~_umask())  # the library writes files that only their owner can read
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def schedule_buffers(schedule: NoiseSchedule) -> dict[str, Tensor]:
    """The buffers that the official LatentDiffusion registers, from betas and the rescale."""
    betas = schedule.betas
    abar = torch.cumprod(1 - betas, 0)
    previous = torch.cat([abar.new_ones(1), abar[:-1]])
    variance = betas * (1 - previous) / (1 - abar)
    buffers = {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": previous,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": (1 / abar).sqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * previous.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - previous) * (1 - betas).sqrt() / (1 - abar),
    }
    # The official files carry 1400 entries; those after the first 1000 repeat the last and mean nothing. A plain
    # schedule's are written too (ones): without them the file would be taken for what its family was trained with.
    buffers["scale_arr"] = torch.cat([schedule.scale, schedule.scale[-1:].expand(1400 - TIMESTEPS)])
    return {name: tensor.float() for name, tensor in buffers.items()}


__all__ = [
    "Checkpoint",
    "CheckpointError",
    "UnsupportedCheckpointError",
    "assemble",
    "load",
    "read_tensors",
    "save",
    "schedule_buffers",
    "take",
]
