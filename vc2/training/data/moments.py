"""Encoded procedural frames: the autoencoder runs once per distinct frame, not once per clip and epoch.

The cache is keyed by a fingerprint of the autoencoder's weights, so it can never be read with another autoencoder.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from ...autoencoder import AutoencoderKL
from . import procedural as world

log = logging.getLogger(__name__)


class FrameMoments:
    """Posterior moments of every frame of the procedural world, `[colours, shapes, 25 (y), 25 (x), 8, 8, 8]` in half precision."""

    def __init__(self, autoencoder: AutoencoderKL, cache: Path):
        path = cache / f"procedural-{fingerprint(autoencoder)}.safetensors"
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            save_file({"moments": encode_world(autoencoder)}, temporary)
            temporary.replace(path)
        self.table = load_file(path)["moments"]

    def clip(self, scene: world.Scene, first: int, frames: int, stride: int) -> Tensor:
        """Moments `[frames, 8, 8, 8]` of the scene's frames first, first + stride, ..."""
        x, y = (scene.positions()[first::stride][:frames] + world.REACH).unbind(-1)
        return self.table[scene.colour, scene.shape, y, x].float()


def fingerprint(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def encode_world(autoencoder: AutoencoderKL, reach: int = world.REACH, batch: int = 125) -> Tensor:
    """Moments of every colour, shape and place up to `reach` pixels off the middle: `[colours, shapes, y, x, 8, h, w]`."""
    grid = torch.arange(-reach, reach + 1)
    centres = torch.stack(torch.meshgrid(grid, grid, indexing="ij")[::-1], -1).reshape(-1, 2)  # row-major in y, x first in the pair
    rows = []
    for colour in tqdm(range(len(world.COLOURS)), desc="encoding every frame", unit="colour"):
        for shape in range(len(world.SHAPES)):
            for part in centres.split(batch):
                ids = torch.ones(len(part), dtype=torch.long)
                rows.append(autoencoder.encode(world.render(colour * ids, shape * ids, part)).half())
    return torch.cat(rows).reshape(len(world.COLOURS), len(world.SHAPES), len(grid), len(grid), *rows[0].shape[1:])
