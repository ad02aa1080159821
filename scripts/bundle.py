"""Make a run's model the bundled miniature, or the LoRA that gives it four steps:

    python -m scripts.bundle runs/tiny-polish/model.safetensors
    python -m scripts.bundle runs/tiny-turbo/model.safetensors

The token embedding, a quarter of the file, of which captions read hardly anything, goes back to the byte a number it
had in training (`vc2/evaluation/miniature/encoders.py`); all else stays as the run wrote it. Of what was distilled only
the change comes along, at a rank that loses nothing one sees.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vc2.command import exit_status
from vc2.evaluation.miniature.encoders import BUNDLED, EMBEDDING, EMBEDDING_DTYPE
from vc2.files import checkpoint, lora
from vc2.training.initialise import fingerprint_of

from .graph import TINY_TURBO
from .graphs import WEIGHTS
from .low_rank import difference

TURBO_LORA, TURBO_RANK = WEIGHTS / "loras" / TINY_TURBO, 2


def bundle(run: Path, target: Path | None = None) -> None:
    """Raises CheckpointError, OSError, and ValueError for what is no whole model, or no relative of the miniature."""
    model = checkpoint.load(run, torch.float16)
    if model.text is None or model.vae is None:
        raise ValueError(f"{run} is no whole model; name the model.safetensors of a finished run")
    if model.config.time_cond_proj_dim is not None:
        base = checkpoint.load(BUNDLED, torch.float16).unet
        if not _starts_from(model.unet, base):
            raise ValueError(f"{run} was not distilled from {BUNDLED}; bundle first what it was distilled from")
        metadata = {**model.metadata, "of": fingerprint_of(base)}
        lora.save(target or TURBO_LORA, difference(base, model.unet, TURBO_RANK), metadata)
        return
    embedding = model.text[EMBEDDING]
    small = embedding.to(EMBEDDING_DTYPE)
    if not torch.equal(small.to(embedding.dtype), embedding):
        raise ValueError(f"{run} was trained on another text tower than that of runs/paper/encoders.safetensors")
    checkpoint.save(
        target or BUNDLED,
        unet=model.unet,
        vae=model.vae,
        text={**model.text, EMBEDDING: small},
        schedule=model.schedule,
        metadata=model.metadata,
    )


def _starts_from(made: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> bool:
    """Whether what no LoRA reaches, biases and norms, is the same."""
    vectors = [name for name, tensor in base.items() if tensor.ndim == 1]
    return base.keys() <= made.keys() and all(torch.equal(made[name], base[name]) for name in vectors)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    return exit_status(lambda: bundle(args.run))


if __name__ == "__main__":
    sys.exit(main())
