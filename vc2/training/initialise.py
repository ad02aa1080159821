"""Starting weights: from a VideoCrafter checkpoint, from Stable Diffusion 2.1, or fresh."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import checkpoint
from ..files.checkpoint import CheckpointError
from ..files.lora import GUIDANCE_LAYER, GUIDANCE_WIDTH
from ..networks.autoencoder import AutoencoderKL
from ..networks.config import AutoencoderConfig, TextConfig, UNetConfig, as_config
from ..networks.layers import ResBlock, TemporalConv, Transformer
from ..networks.text import TextEncoder
from ..networks.unet import VideoUNet
from ..pipeline import DISTILLED, recommended
from ..sampling.schedule import NoiseSchedule
from .errors import RecipeError
from .partition import temporal_names
from .recipe import Recipe


def start_unet(recipe: Recipe) -> VideoUNet:
    """The float32 UNet that a recipe starts from, the same every time it is asked for. Raises CheckpointError, OSError
    for a missing file, or RecipeError for a model that the recipe does not fit.
    """
    init = recipe.init
    if init.unet:
        loaded = checkpoint.load(init.unet)
        if loaded.config.time_cond_proj_dim is not None:
            raise RecipeError(
                f"{init.unet} is a T2V-Turbo model, distilled for few steps, which training would undo; start from the"
                " model that it was made of"
            )
        wanted, found = recipe.diffusion.scale_end, float(loaded.schedule.scale[-1])
        if not torch.allclose(loaded.schedule.scale, NoiseSchedule(wanted).scale, atol=1e-3):
            raise RecipeError(
                f"{init.unet} was trained with a dynamic rescale that ends at {found:g}, and diffusion.scale_end is"
                f" {wanted}; set diffusion.scale_end={'null' if found == 1 else f'{found:g}'}"
            )
        # Copies, since what is memory-mapped cannot be trained in place; contiguous, since a .ckpt may hold other
        # strides, which cannot be sharded.
        weights = {
            name: tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            for name, tensor in loaded.unet.items()
        }
        config = loaded.config
        if recipe.distils:
            # Zeros: until it has learned, it is the model that it is made of.
            config = replace(config, time_cond_proj_dim=GUIDANCE_WIDTH)
            weights[f"{GUIDANCE_LAYER}.weight"] = torch.zeros(config.model_channels, GUIDANCE_WIDTH)
        return checkpoint.assemble(VideoUNet(config, device="meta"), weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        unet = zero_outputs(VideoUNet(as_config(UNetConfig, recipe.networks.unet)))
    if init.sd:
        load_spatial(unet, init.sd)
    return unet


def load_spatial(unet: VideoUNet, path: Path) -> None:
    """theta_S from Stable Diffusion 2.1's UNet, LDM layout (with or without `model.diffusion_model.`) or diffusers';
    all of it (686 tensors), or an error.

    Together with `zero_outputs` the UNet then computes exactly what SD 2.1 does, on every frame.
    """
    given = checkpoint.read_tensors(path)
    if any(name.startswith("down_blocks.") for name in given):
        given = {ldm_name(name): tensor for name, tensor in given.items()}
    else:
        given = checkpoint.take(given, checkpoint.UNET) or given
    # The middle block and the two upsamplers with attention stand one place later where a temporal transformer comes
    # between.
    moved = {
        "middle_block.2.": "middle_block.3.",
        "output_blocks.5.2.": "output_blocks.5.3.",
        "output_blocks.8.2.": "output_blocks.8.3.",
    }
    given = {
        next((new + name[len(old) :] for old, new in moved.items() if name.startswith(old)), name): tensor
        for name, tensor in given.items()
    }
    temporal, state = temporal_names(unet), unet.state_dict()
    wanted = {name for name in state if name not in temporal}
    missing, unknown = sorted(wanted - given.keys()), sorted(given.keys() - wanted - checkpoint.SCHEDULE_BUFFERS)
    if missing or unknown:
        raise CheckpointError(
            f"{path}: {len(wanted) - len(missing)} of the {len(wanted)} spatial tensors found, {len(unknown)} others;"
            " expected Stable Diffusion 2.1's UNet, such as v2-1_512-ema-pruned.safetensors. Missing:"
            f" {', '.join(missing[:3]) or 'none'}; unexpected: {', '.join(unknown[:3]) or 'none'}"
        )
    for name in wanted:
        # diffusers and SD 1 keep some projections as Linear that others keep as convolutions of size 1.
        tensor = given[name]
        if tensor.shape != state[name].shape and tensor.squeeze().shape == state[name].squeeze().shape:
            tensor = tensor.reshape(state[name].shape)
        if tensor.shape != state[name].shape:
            raise CheckpointError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, expected {tuple(state[name].shape)}"
            )
        state[name].copy_(tensor)


def ldm_name(name: str) -> str:
    """A tensor of diffusers' UNet2DConditionModel in the LDM layout."""
    fixed = {
        "conv_in.": "input_blocks.0.0.",
        "time_embedding.linear_1.": "time_embed.0.",
        "time_embedding.linear_2.": "time_embed.2.",
        "conv_norm_out.": "out.0.",
        "conv_out.": "out.2.",
    }
    for old, new in fixed.items():
        if name.startswith(old):
            return new + name.removeprefix(old)

    def block(match: re.Match) -> str:
        side, i, kind, rest = match["side"], int(match["i"]), match["kind"], match["rest"]
        if kind == "downsamplers":
            return f"input_blocks.{3 * i + 3}.0.op." + rest.removeprefix("conv.")
        if kind == "upsamplers":
            return f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}.{rest}"
        j, inner = int(match["j"]), 0 if kind == "resnets" else 1
        place = f"input_blocks.{3 * i + 1 + j}" if side == "down" else f"output_blocks.{3 * i + j}"
        return f"{place}.{inner}.{_resnet(rest) if inner == 0 else rest}"

    kinds = "resnets|attentions|downsamplers|upsamplers"
    name = re.sub(rf"^(?P<side>down|up)_blocks\.(?P<i>\d+)\.(?P<kind>{kinds})\.(?P<j>\d+)\.(?P<rest>.+)$", block, name)
    name = re.sub(r"^mid_block\.resnets\.(\d)\.(.+)$", lambda m: f"middle_block.{2 * int(m[1])}.{_resnet(m[2])}", name)
    return re.sub(r"^mid_block\.attentions\.0\.", "middle_block.1.", name)


def _resnet(rest: str) -> str:
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    layer, _, leaf = rest.partition(".")
    return f"{names.get(layer, layer)}.{leaf}"


@torch.no_grad()
def zero_outputs(unet: VideoUNet) -> VideoUNet:
    """Make every residual branch of a fresh UNet start as zero (as the official constructors do), the prediction, and
    what the fps adds to the timestep.
    """
    layers: list[Any] = [unet.out[-1]]
    if unet.config.fps_cond:
        layers.append(unet.fps_embedding[-1])
    for module in unet.modules():
        if isinstance(module, ResBlock):
            layers.append(module.out_layers[-1])
        elif isinstance(module, Transformer):
            layers.append(module.proj_out)
        elif isinstance(module, TemporalConv):
            layers.append(module.conv4[-1])
    for layer in layers:
        layer.weight.zero_()
        layer.bias.zero_()
    return unet


def sampling_of(recipe: Recipe) -> dict[str, Any]:
    """The recipe's sampling settings, over those that its starting file recommends. Raises CheckpointError."""
    try:
        own = recommended(checkpoint.read_metadata(recipe.init.unet)) if recipe.init.unet else {}
    except ValueError as error:
        raise CheckpointError(f"{recipe.init.unet}: {error}") from error
    if recipe.distils:
        low, high = recipe.consistency.guidance
        guidance = min(max(float(DISTILLED["guidance"]), low), high)
        own |= {"steps": DISTILLED["steps"], "guidance": guidance, "original_steps": recipe.consistency.timesteps}
    return {**own, **recipe.sampling.model_dump(exclude_none=True)}


def load_autoencoder(path: Path | None) -> AutoencoderKL:
    """The autoencoder of a file, frozen, in float32. Raises CheckpointError."""
    state = checkpoint.load_part(path, checkpoint.VAE, "init.autoencoder (else init.unet or init.sd)")
    network = AutoencoderKL(AutoencoderConfig.from_state_dict(state), device="meta")
    return checkpoint.assemble(network, state).eval().requires_grad_(False)


def load_text(path: Path | None) -> TextEncoder:
    """The text encoder of a file, frozen, in float32. Raises CheckpointError."""
    state = checkpoint.load_part(path, checkpoint.TEXT, "init.text (else init.unet or init.sd)")
    network = TextEncoder(TextConfig.from_state_dict(state), device="meta")
    return checkpoint.assemble(network, state).eval().requires_grad_(False)


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits of a network's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(
            tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
            if tensor.ndim
            else str(float(tensor)).encode()
        )
    return digest.hexdigest()[:16]
