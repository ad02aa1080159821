"""LoRA files of every layout that exists for VideoCrafter2, read as the one that stock ComfyUI loads.

Layouts that are read:
- T2V-Turbo v1's `unet_lora.pt`: a bare list [up0, down0, up1, ...] over every Linear, Conv2d and Conv3d of the UNet
  with its `time_cond_proj`, in the order of `named_modules()`; scale 1 (their `utils/lora.py`);
- PEFT (`base_model.model...<path>.lora_A.weight`; VADER's files have it over the whole model): alpha by the
  `adapter_config.json` beside the file (see `peft`), else PEFT's default, 8;
- kohya (`lora_unet_<path_with_underscores>.lora_down.weight`) and ComfyUI's own
  (`diffusion_model.<path>.lora_A.weight`, `.diff`): scale 1 where no alpha is.

What is written: `diffusion_model.<path>.lora_A.weight`, `.lora_B.weight`, `.alpha`, `.diff`, `.diff_b`.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from ..networks.config import UNetConfig
from ..networks.unet import VideoUNet
from ..plural import plural
from . import CheckpointError, checkpoint, peft
from .foreign import LORA, foreign_model
from .tensors import check_numbers, check_shapes, named, read_content

log = logging.getLogger(__name__)

PREFIX = "diffusion_model."
DOWN, UP = "lora_A.weight", "lora_B.weight"
# T2V-Turbo's layer that reads the guidance scale, and how wide that is embedded.
GUIDANCE_LAYER, GUIDANCE_WIDTH = "time_cond_proj", 256
# How the layouts end a tensor's name -> how it ends here.
ENDINGS = {
    "lora_A.weight": DOWN,
    "lora_A.default.weight": DOWN,
    "lora_down.weight": DOWN,
    "lora.down.weight": DOWN,
    "lora_B.weight": UP,
    "lora_B.default.weight": UP,
    "lora_up.weight": UP,
    "lora.up.weight": UP,
    "alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
}
NAME = re.compile(rf"(?P<layer>.+)\.(?P<ending>{'|'.join(map(re.escape, ENDINGS))})")
LAYOUTS = "a LoRA for VideoCrafter2 in T2V-Turbo's, PEFT's, kohya's or ComfyUI's layout"
TEXT_PREFIXES = ("lora_te", "text_encoder.", "base_model.model.text_encoder.", "cond_stage_model.")


class MisfitError(CheckpointError):
    """A LoRA for a model of another size, as far as can be told."""


def load(path: str | Path, config: UNetConfig | None = None) -> dict[str, Tensor]:
    """A LoRA file's tensors in the layout above. `config`: the model's, VideoCrafter2's where None.

    Raises FileNotFoundError, MisfitError where the file is a LoRA that does not fit the model, or CheckpointError where
    it is damaged or something else, such as a whole checkpoint; the message names file and tensor.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(
            f"{path} is a folder; name the file in it, such as {path / 'adapter_model.safetensors'}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such LoRA file")
    unet = _unet(config or UNetConfig.vc2())
    content = read_content(path)
    if isinstance(content, list):
        tensors = _from_list(path, content, unet)
    else:
        tensors = _from_names(path, named(path, content), unet)
    _check(path, tensors, unet)
    return tensors


def save(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None, overwrite: bool = True
) -> Path:
    """Write tensors of `load`'s layout as safetensors, for the stock LoRA loader; otherwise as `checkpoint.save`."""
    return checkpoint.save_part(path, "", tensors, metadata, overwrite)


def by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Tensors of `load`'s layout, by the layer's path in the UNet and how the name goes on ("lora_A.weight", ...)."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            layers.setdefault(match["layer"].removeprefix(PREFIX), {})[match["ending"]] = tensor
    return layers


def adapted_modules(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Path -> weight shape of all that T2V-Turbo adapts, in its order.

    `time_cond_proj` is among them whether or not the model has one.
    """
    return _adapted(_unet(config))


def _unet(config: UNetConfig) -> VideoUNet:
    """The model on the meta device, with the layer that T2V-Turbo adds."""
    width = config.time_cond_proj_dim or GUIDANCE_WIDTH
    return VideoUNet(dataclasses.replace(config, time_cond_proj_dim=width), device="meta")


def _adapted(unet: VideoUNet) -> dict[str, tuple[int, ...]]:
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return {name: tuple(m.weight.shape) for name, m in unet.named_modules() if isinstance(m, kinds)}


def _from_list(path: Path, content: Sequence, unet: VideoUNet) -> dict[str, Tensor]:
    layers = list(_adapted(unet))
    if not all(isinstance(t, Tensor) for t in content) or len(content) != 2 * len(layers):
        raise MisfitError(
            f"{path} is a list of {len(content)} entries; a T2V-Turbo LoRA for this model has {2 * len(layers)}"
            f" tensors, an up and a down one for each of {len(layers)} modules"
        )
    tensors = {}
    for layer, up, down in zip(layers, content[0::2], content[1::2], strict=True):
        tensors[f"{PREFIX}{layer}.{DOWN}"], tensors[f"{PREFIX}{layer}.{UP}"] = down, up
    return tensors


def _from_names(path: Path, state: dict[str, Tensor], unet: VideoUNet) -> dict[str, Tensor]:
    layers = {name.rpartition(".")[0] for name in unet.state_dict() if name.endswith(".weight")}
    underscored = {name.replace(".", "_"): name for name in layers}

    def layer_of(module: str) -> str | None:
        """The UNet's own name of a layer, from a file's."""
        if module.startswith("lora_unet_"):
            return underscored.get(module.removeprefix("lora_unet_"))
        module = module.rsplit(PREFIX, 1)[-1].removeprefix("base_model.model.").removeprefix("unet.")
        return module if module in layers else None

    tensors, text_encoders, unknown, adapted = {}, 0, [], {}
    for name, tensor in state.items():
        match = NAME.fullmatch(name)
        if name.startswith(TEXT_PREFIXES):
            text_encoders += 1
        elif match and (layer := layer_of(match["layer"])) is not None:
            target = f"{PREFIX}{layer}.{ENDINGS[match['ending']]}"
            if target in tensors:
                raise MisfitError(f"{path}: {name} is there twice, by two names; expected {target} once")
            tensors[target] = tensor.reshape(()) if target.endswith(".alpha") and tensor.numel() == 1 else tensor
            if "base_model." in name:
                adapted[layer] = match["layer"].removeprefix("base_model.model.")
        else:
            unknown.append(name)
    if not tensors:
        raise _nothing_of_this_model(path, state, unknown)
    if unknown:
        raise MisfitError(
            f"{path}: {len(unknown)} of {len(state)} tensors belong to no layer of this model"
            f" ({', '.join(unknown[:3])}); expected {LAYOUTS}"
        )
    if text_encoders:
        log.warning(
            "%s: %s for the text encoder left out; VideoCrafter2's is used as it is",
            path,
            plural(text_encoders, "tensor"),
        )
    given = by_layer(tensors)
    ranks = {
        module: down.shape[0]
        for layer, module in adapted.items()
        if (down := given[layer].get(DOWN)) is not None and down.ndim
    }
    alphas = peft.alphas(path, ranks) if ranks else {}
    for layer, module in adapted.items():
        if module in alphas:
            tensors.setdefault(f"{PREFIX}{layer}.alpha", torch.tensor(alphas[module]))
    return tensors


def _nothing_of_this_model(path: Path, state: dict[str, Tensor], unknown: list[str]) -> CheckpointError:
    """What a file is that has no tensor for a layer of this model, and what to do."""
    model = foreign_model(state)
    if any(name.endswith("input_blocks.0.0.weight") for name in state) and model != LORA:
        return CheckpointError(
            f"{path} holds the weights of a model ({model or 'a VideoCrafter checkpoint'}), not a LoRA; expected"
            f" {LAYOUTS}. A checkpoint is loaded by itself; to add a LoRA to it, name the LoRA here, and this as the"
            " model"
        )
    if not unknown:
        return CheckpointError(
            f"{path} is a LoRA for the text encoder alone, and VideoCrafter2's is used as it is; expected {LAYOUTS}"
        )
    is_lora = any(NAME.fullmatch(name) for name in unknown)
    what = "is a LoRA for another network" if is_lora else f"is {model}, not a LoRA" if model else "holds no LoRA"
    return CheckpointError(
        f"{path} {what}: it has nothing for any layer of this model ({', '.join(unknown[:3])}); expected {LAYOUTS}"
    )


def _check(path: Path, tensors: dict[str, Tensor], unet: VideoUNet) -> None:
    """Every number is finite, every pair is complete and multiplies to its layer's shape."""
    check_shapes(path, tensors)
    shapes = {name: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    for layer, given in by_layer(tensors).items():
        weight, bias = shapes[f"{layer}.weight"], shapes.get(f"{layer}.bias")
        expected = {"diff": weight, "diff_b": bias, "alpha": ()}
        if given.keys() & {DOWN, UP, "alpha"}:
            if len(weight) < 2:
                raise MisfitError(f"{path}: {PREFIX}{layer} has no matrix to which a LoRA could be added")
            for ending in (DOWN, UP):
                if ending not in given:
                    raise CheckpointError(f"{path}: {PREFIX}{layer}.{ending} is missing; its other half is there")
            rank = given[DOWN].shape[:1]
            expected[DOWN] = (*rank, *weight[1:])
            expected[UP] = (*weight[:1], *rank, *(1,) * (len(weight) - 2))
        for ending, tensor in given.items():
            shape = tuple(tensor.shape)
            if shape != expected[ending]:
                wanted = {(): "a single number", None: "none, for this layer has no bias"}.get(
                    expected[ending], f"{expected[ending]} for this model"
                )
                raise MisfitError(f"{path}: {PREFIX}{layer}.{ending} has shape {shape}, expected {wanted}")
    # alpha is the one that some write as an integer.
    whole = {name: t.float() if name.endswith(".alpha") and not t.is_complex() else t for name, t in tensors.items()}
    check_numbers(path, whole)
