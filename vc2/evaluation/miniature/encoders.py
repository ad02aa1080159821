"""The autoencoder and the text tower that all models share: the bundled miniature's where they are those that the gates
were measured with, else trained from nothing.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from ...files import checkpoint
from ...training.initialise import fingerprint_of, load_autoencoder, load_text
from ...training.loop import Trainer
from ...training.recipe_files import load_recipe
from .arms import GATES

BUNDLED = Path("models/vc2-tiny.safetensors")
EMBEDDING = "token_embedding.weight"
# Of 49,408 tokens the world's captions use two dozen; a byte a number is 3 MB less to bundle.
EMBEDDING_DTYPE = torch.float8_e4m3fn


def fingerprints(path: Path) -> dict[str, str]:
    """Of the networks in a file. Raises CheckpointError, OSError."""
    networks = {"autoencoder": load_autoencoder(path), "text": load_text(path)}
    return {name: fingerprint_of(network.state_dict()) for name, network in networks.items()}


def make(target: Path) -> bool:
    """Write the file, unless it is there; False where training was stopped, which goes on next time."""
    if target.is_file():
        return True
    if GATES.is_file() and json.loads(GATES.read_text(encoding="utf-8"))["encoders"] == fingerprints(BUNDLED):
        sources = {checkpoint.VAE: BUNDLED, checkpoint.TEXT: BUNDLED}
    else:
        sources = {}
        for prefix, recipe in ((checkpoint.VAE, "paper/autoencoder"), (checkpoint.TEXT, "tiny/text")):
            folder = target.parent / Path(recipe).name
            if not Trainer(load_recipe(recipe), folder, target.parent / "cache").run():
                return False
            sources[prefix] = folder / "model.safetensors"
    vae, text = (
        {name: _kept(name, tensor) for name, tensor in checkpoint.load_part(path, prefix, "").items()}
        for prefix, path in sources.items()
    )
    checkpoint.save(target, unet={}, vae=vae, text=text)
    return True


def _kept(name: str, tensor: Tensor) -> Tensor:
    """In the precision of the bundled miniature, so that its networks are these to the bit."""
    return tensor.to(EMBEDDING_DTYPE if name == EMBEDDING else torch.float16)
