"""`python -m vc2.lora unet_lora.pt turbo.safetensors`: convert a LoRA, or merge it into a checkpoint."""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .command import exit_status
from .files.output import check_target
from .plural import plural

if TYPE_CHECKING:
    from .files.checkpoint import Checkpoint

log = logging.getLogger(__name__)


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="python -m vc2.lora",
        description="Convert a LoRA for VideoCrafter2 to the layout that stock ComfyUI loads, or merge it.",
    )
    p.add_argument("source", type=Path, help="T2V-Turbo's unet_lora.pt, a VADER or other PEFT file, a kohya file")
    p.add_argument("target", type=Path, help="the .safetensors file to write: the LoRA, or a checkpoint with --merge")
    p.add_argument("--model", type=Path, help="the checkpoint that it is for (default: VideoCrafter2's shapes)")
    p.add_argument("--merge", action="store_true", help="write the whole --model with the LoRA in its weights")
    p.add_argument("--strength", type=float, help="of the LoRA, with --merge (default: 1)")
    p.add_argument("--overwrite", action="store_true", help="replace a target that exists")
    return p


def check(args: argparse.Namespace) -> None:
    """Raise ValueError or OSError for what cannot be done, before anything is read."""
    if args.target.suffix != ".safetensors":
        raise ValueError(f"{args.target}: the target must be a .safetensors file")
    if args.merge and not args.model:
        raise ValueError("--merge needs --model, the checkpoint to merge into")
    if args.strength is not None and not args.merge:
        raise ValueError("--strength needs --merge: a LoRA that is only converted keeps its strength")
    if args.strength is not None and not math.isfinite(args.strength):
        raise ValueError(f"--strength must be a finite number, found {args.strength}")
    check_target(args.target, args.overwrite)


def run(args: argparse.Namespace) -> None:
    """Convert or merge as `args` say; what it raises names what is wrong."""
    # torch is imported only now, so that a wrong argument is told at once.
    from .files import checkpoint, lora
    from .files.merge import merge

    model = checkpoint.load(args.model) if args.model else None
    try:
        tensors = lora.load(args.source, model.config if model else None)
    except lora.MisfitError as error:
        if model:
            raise
        raise ValueError(f"{error}. For a LoRA of another model, give its checkpoint with --model") from error
    if model and args.merge:
        unet = merge(model.unet, tensors, 1.0 if args.strength is None else args.strength)
        # T2V-Turbo was distilled on the plain schedule; without buffers in the file that is what its family gets.
        distilled = f"{lora.GUIDANCE_LAYER}.weight" in unet
        checkpoint.save(
            args.target,
            unet=unet,
            vae=model.vae,
            text=model.text,
            schedule=None if distilled else model.schedule,
            metadata=_without_steps(model) if distilled else model.metadata,
            overwrite=args.overwrite,
        )
    else:
        lora.save(args.target, tensors, overwrite=args.overwrite)
    layers = plural(len(lora.by_layer(tensors)), "layer")
    log.info("%s: %s for %s", args.target, plural(len(tensors), "tensor"), layers)


def _without_steps(model: Checkpoint) -> dict[str, str]:
    """A checkpoint's metadata without the steps and guidance that it recommends: a distilled model has its own."""
    from .pipeline import recommended

    if "sampling" not in model.metadata:
        return model.metadata
    try:
        sampling = recommended(model.metadata)
    except ValueError as error:
        raise ValueError(f"{model.path}: {error}") from error
    rest = {name: value for name, value in sampling.items() if name not in ("steps", "guidance")}
    return {**model.metadata, "sampling": json.dumps(rest)}


def main(argv: list[str] | None = None) -> int:
    """The exit status: 0, 130 for Ctrl-C, 2 for what the user can put right, which one line tells."""
    args = parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    def work() -> None:
        check(args)
        run(args)

    return exit_status(work, interrupted="interrupted; nothing half-written is left")


if __name__ == "__main__":
    sys.exit(main())
