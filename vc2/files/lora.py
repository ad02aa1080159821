"""LoRA files of every layout that exists for VideoCrafter2, in one: the one that stock ComfyUI loads.

    python -m vc2.lora unet_lora.pt turbo.safetensors

Layouts that are read:
- T2V-Turbo v1's `unet_lora.pt`: a bare list [up0, down0, up1, ...] over every Linear, Conv2d and Conv3d of the UNet
  with its `time_cond_proj`, in the order of `named_modules()`; scale 1 (their `utils/lora.py`);
- PEFT (`base_model.model...<path>.lora_A.weight`; VADER's files have it over the whole model): alpha from the
  `adapter_config.json` beside the file, else PEFT's default, 8;
- kohya (`lora_unet_<path_with_underscores>.lora_down.weight`) and ComfyUI's own
  (`diffusion_model.<path>.lora_A.weight`, `.diff`): scale 1 where no alpha is.

What is written: `diffusion_model.<path>.lora_A.weight`, `.lora_B.weight`, `.alpha`, `.diff`, `.diff_b`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import re
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from ..networks.config import UNetConfig
from ..networks.unet import VideoUNet
from . import checkpoint
from .checkpoint import CheckpointError

log = logging.getLogger(__name__)

PREFIX = "diffusion_model."
PEFT_ALPHA = 8.0
# T2V-Turbo's layer that reads the guidance scale, and how wide that is embedded.
GUIDANCE_LAYER, GUIDANCE_WIDTH = "time_cond_proj", 256
# Ends of names, and what they are called here.
KINDS = {
    "lora_A.weight": "lora_A.weight", "lora_A.default.weight": "lora_A.weight", "lora_down.weight": "lora_A.weight", "lora.down.weight": "lora_A.weight",
    "lora_B.weight": "lora_B.weight", "lora_B.default.weight": "lora_B.weight", "lora_up.weight": "lora_B.weight", "lora.up.weight": "lora_B.weight",
    "alpha": "alpha", "diff": "diff", "diff_b": "diff_b",
}  # fmt: skip
TEXT_PREFIXES = ("lora_te", "text_encoder.", "base_model.model.text_encoder.", "cond_stage_model.")


def adapted_modules(config: UNetConfig) -> dict[str, tuple[int, ...]]:
    """Path -> weight shape of all that T2V-Turbo adapts, in its order; with `time_cond_proj` whether or not the model
    has one.
    """
    full = dataclasses.replace(config, time_cond_proj_dim=config.time_cond_proj_dim or GUIDANCE_WIDTH)
    kinds = (nn.Linear, nn.Conv2d, nn.Conv3d)
    return {
        name: tuple(m.weight.shape)
        for name, m in VideoUNet(full, device="meta").named_modules()
        if isinstance(m, kinds)
    }


def load(path: str | Path, config: UNetConfig | None = None) -> dict[str, Tensor]:
    """A LoRA file's tensors in the layout above. `config`: the model's, VideoCrafter2's where None.

    Raises FileNotFoundError, or CheckpointError where the file is of no known layout or does not fit the model; the
    message names file and tensor.
    """
    path, config = Path(path), config or UNetConfig.vc2()
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such LoRA file")
    content = checkpoint.read_pickle(path) if path.suffix != ".safetensors" else None
    is_list = isinstance(content, (list, tuple))
    out = (
        _from_list(path, list(content), config) if is_list else _from_names(path, checkpoint.read_tensors(path), config)
    )  # type: ignore[arg-type]
    _check(path, out, config)
    return out


def save(path: str | Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> Path:
    """Write tensors of `load`'s layout as safetensors, for the stock LoRA loader. Atomic."""
    return checkpoint.save_part(path, "", tensors, metadata)


def _from_list(path: Path, content: list, config: UNetConfig) -> dict[str, Tensor]:
    modules = list(adapted_modules(config))
    if not all(isinstance(t, Tensor) for t in content) or len(content) != 2 * len(modules):
        raise CheckpointError(
            f"{path} is a list of {len(content)} entries; a T2V-Turbo LoRA for this model has {2 * len(modules)}"
            f" tensors, an up and a down one for each of {len(modules)} modules"
        )
    pairs = zip(modules, content[0::2], content[1::2], strict=True)
    return {f"{PREFIX}{name}.lora_{side}.weight": t for name, up, down in pairs for side, t in (("A", down), ("B", up))}


def _from_names(path: Path, state: dict[str, Tensor], config: UNetConfig) -> dict[str, Tensor]:
    names = {f"{name}" for name, _ in VideoUNet(config, device="meta").named_modules()} | {GUIDANCE_LAYER}
    underscored = {name.replace(".", "_"): name for name in names}
    out, ignored, unknown, peft = {}, 0, [], False
    for name, tensor in state.items():
        match = re.fullmatch(rf"(.+)\.({'|'.join(map(re.escape, KINDS))})", name)
        if name.startswith(TEXT_PREFIXES):
            ignored += 1
        elif match and (module := _module(match[1], names, underscored)) is not None:
            out[f"{PREFIX}{module}.{KINDS[match[2]]}"] = tensor
            peft = peft or "base_model." in name
        else:
            unknown.append(name)
    if unknown or not out:
        raise CheckpointError(
            f"{path}: {len(unknown)} of {len(state)} tensors belong to no layer of this model"
            f" ({', '.join(unknown[:3]) or 'none are LoRA tensors'}); expected a LoRA for VideoCrafter2 in T2V-Turbo's,"
            " PEFT's, kohya's or ComfyUI's layout"
        )
    if ignored:
        log.warning("%s: %d tensors for the text encoder are left out; VideoCrafter2's is used as it is", path, ignored)
    if peft:
        alpha = _peft_alpha(path)
        for name in [name for name in out if name.endswith(".lora_A.weight")]:
            out.setdefault(name.replace(".lora_A.weight", ".alpha"), torch.tensor(alpha))
    return out


def _module(path: str, names: set[str], underscored: dict[str, str]) -> str | None:
    """The UNet's own name of a module, from a file's."""
    if path.startswith("lora_unet_"):
        return underscored.get(path.removeprefix("lora_unet_"))
    path = path.rsplit(PREFIX, 1)[-1].removeprefix("base_model.model.").removeprefix("unet.")
    return path if path in names else None


def _peft_alpha(path: Path) -> float:
    config = path.with_name("adapter_config.json")
    if not config.is_file():
        return PEFT_ALPHA
    try:
        alpha = json.loads(config.read_text()).get("lora_alpha", PEFT_ALPHA)
        return float(alpha)
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{config} is not a PEFT adapter configuration: {error}") from error


def _check(path: Path, tensors: dict[str, Tensor], config: UNetConfig) -> None:
    """Every pair is complete and multiplies to its layer's shape."""
    full = dataclasses.replace(config, time_cond_proj_dim=config.time_cond_proj_dim or GUIDANCE_WIDTH)
    weights = {name: tuple(t.shape) for name, t in VideoUNet(full, device="meta").state_dict().items()}
    for name, tensor in tensors.items():
        module, kind = re.fullmatch(
            rf"{re.escape(PREFIX)}(.+)\.(lora_A\.weight|lora_B\.weight|alpha|diff|diff_b)", name
        ).groups()  # type: ignore[union-attr]
        if kind in ("lora_A.weight", "lora_B.weight"):
            other = name.replace("lora_A", "lora_C").replace("lora_B", "lora_A").replace("lora_C", "lora_B")
            if other not in tensors:
                raise CheckpointError(f"{path}: {other} is missing; {name} is there")
        shape = weights.get(f"{module}.weight", ())
        found = expected = tuple(tensor.shape)
        if kind == "lora_A.weight":
            rank, expected = tensor.shape[0], (tensor.shape[0], *shape[1:])
            up = tuple(tensors[name.replace("lora_A", "lora_B")].shape)
            if up != (shape[:1] + (rank,) + (1,) * (len(shape) - 2)):
                raise CheckpointError(
                    f"{path}: {name.replace('lora_A', 'lora_B')} has shape {up}, expected"
                    f" {(*shape[:1], rank, *(1,) * (len(shape) - 2))}"
                )
        elif kind == "diff":
            expected = shape
        elif kind == "diff_b":
            expected = weights.get(f"{module}.bias", ())
        if found != expected:
            raise CheckpointError(f"{path}: {name} has shape {found}, expected {expected} for this model")


def merge(state: dict[str, Tensor], lora: dict[str, Tensor], strength: float = 1.0) -> dict[str, Tensor]:
    """A UNet's tensors with `load`'s added: W + strength (alpha / rank) B A, or strength diff. A missing
    `time_cond_proj.weight` counts as zero.
    """
    out = dict(state)
    for name, tensor in lora.items():
        stem = name.removeprefix(PREFIX)
        if stem.endswith(".lora_A.weight"):
            module, up = stem.removesuffix(".lora_A.weight"), lora[name.replace("lora_A", "lora_B")]
            alpha = lora.get(name.replace("lora_A.weight", "alpha"))
            delta = up.float().flatten(1) @ tensor.float().flatten(1)
            delta = delta.reshape(up.shape[0], *tensor.shape[1:]) * (
                1.0 if alpha is None else float(alpha) / tensor.shape[0]
            )
            target = f"{module}.weight"
        elif stem.endswith((".diff", ".diff_b")):
            target = (
                stem.removesuffix(".diff") + ".weight"
                if stem.endswith(".diff")
                else stem.removesuffix(".diff_b") + ".bias"
            )
            delta = tensor.float()
        else:
            continue
        base = out.get(target, torch.zeros_like(delta))
        out[target] = (base.float() + strength * delta).to(base.dtype)
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vc2.lora",
        description="Convert a LoRA for VideoCrafter2 to the layout that stock ComfyUI loads.",
    )
    parser.add_argument("source", type=Path, help="T2V-Turbo's unet_lora.pt, a VADER or other PEFT file, a kohya file")
    parser.add_argument("target", type=Path, help="a .safetensors file to write, or a checkpoint with --merge")
    parser.add_argument("--model", type=Path, help="the checkpoint that it is for (default: VideoCrafter2's shapes)")
    parser.add_argument("--merge", action="store_true", help="write the whole --model with the LoRA in its weights")
    parser.add_argument("--strength", type=float, default=1.0, help="of the LoRA, with --merge (default: 1)")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if args.target.suffix != ".safetensors":
            raise ValueError(f"{args.target}: the target must be a .safetensors file")
        if args.merge and not args.model:
            raise ValueError("--merge needs --model, the checkpoint to merge into")
        model = checkpoint.load(args.model) if args.model else None
        tensors = load(args.source, model.config if model else None)
        if args.merge and model:
            unet = merge(model.unet, tensors, args.strength)
            # T2V-Turbo was distilled on the plain schedule; without buffers in the file that is what its family gets.
            schedule = None if f"{GUIDANCE_LAYER}.weight" in unet else model.schedule
            metadata = dict(model.metadata)
            if (
                schedule is None and "sampling" in metadata
            ):  # the undistilled model's steps and guidance are not this one's
                own = json.loads(metadata["sampling"])
                metadata["sampling"] = json.dumps(
                    {name: value for name, value in own.items() if name not in ("steps", "guidance")}
                )
            checkpoint.save(
                args.target, unet=unet, vae=model.vae, text=model.text, schedule=schedule, metadata=metadata
            )
        else:
            save(args.target, tensors)
        log.info(
            "%s: %d tensors for %d layers",
            args.target,
            len(tensors),
            len({name.rsplit(".lora_", 1)[0] for name in tensors if "alpha" not in name}),
        )
    except (ValueError, OSError) as error:
        log.error("error: %s", error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
