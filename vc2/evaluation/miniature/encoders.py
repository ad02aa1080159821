"""The autoencoder and the text tower that all models share: the bundled miniature's where they are those that the gates
were measured with, else trained from nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ...files import checkpoint
from ...training.initialise import fingerprint_of, load_autoencoder, load_text
from ...training.loop import Trainer
from ...training.recipe_files import load_recipe

BUNDLED = Path("models/vc2-tiny.safetensors")
GATES = Path("docs/miniature/gates.json")


def fingerprints(path: Path) -> dict[str, str]:
    """Of the networks in a file. Raises CheckpointError, OSError."""
    networks = {"autoencoder": load_autoencoder(path), "text": load_text(path)}
    return {name: fingerprint_of(network.state_dict()) for name, network in networks.items()}


def make(target: Path) -> bool:
    """Write the file, unless it is there; False where training the autoencoder was stopped, which goes on next time."""
    if target.is_file():
        return True
    if GATES.is_file() and json.loads(GATES.read_text(encoding="utf-8"))["encoders"] == fingerprints(BUNDLED):
        autoencoder = BUNDLED
    else:
        folder = target.parent / "autoencoder"
        if not Trainer(load_recipe("paper/autoencoder"), folder, target.parent / "cache").run():
            return False
        autoencoder = folder / "model.safetensors"
    # Halves, as in every file that ComfyUI loads, so that these are the networks of the bundled miniature to the bit.
    halves = {
        prefix: {name: tensor.to(torch.float16) for name, tensor in checkpoint.load_part(path, prefix, "").items()}
        for prefix, path in ((checkpoint.VAE, autoencoder), (checkpoint.TEXT, BUNDLED))
    }
    checkpoint.save(target, unet={}, vae=halves[checkpoint.VAE], text=halves[checkpoint.TEXT])
    return True
