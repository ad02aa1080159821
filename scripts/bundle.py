"""Make a run's model the bundled miniature: `python -m scripts.bundle runs/tiny-polish/model.safetensors`.

The token embedding, a quarter of the file, of which captions read hardly anything, goes back to the byte a number it
had in training (`vc2/evaluation/miniature/encoders.py`); all else stays as the run wrote it.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vc2.command import exit_status
from vc2.evaluation.miniature.encoders import BUNDLED, EMBEDDING, EMBEDDING_DTYPE
from vc2.files import checkpoint


def bundle(run: Path, target: Path = BUNDLED) -> None:
    """Raises CheckpointError, OSError, and ValueError for a model with another token embedding."""
    model = checkpoint.load(run, torch.float16)
    if model.text is None or model.vae is None:
        raise ValueError(f"{run} is no whole model; name the model.safetensors of a finished run")
    embedding = model.text[EMBEDDING]
    small = embedding.to(EMBEDDING_DTYPE)
    if not torch.equal(small.to(embedding.dtype), embedding):
        raise ValueError(f"{run} was trained on another text tower than that of runs/paper/encoders.safetensors")
    checkpoint.save(
        target,
        unet=model.unet,
        vae=model.vae,
        text={**model.text, EMBEDDING: small},
        schedule=model.schedule,
        metadata=model.metadata,
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.bundle", description=__doc__)
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    return exit_status(lambda: bundle(args.run))


if __name__ == "__main__":
    sys.exit(main())
