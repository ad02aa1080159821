"""How far a set of clips is from the low-quality videos and from clean ones: a kernel distance over features of the
autoencoder, which stands for FVD over those of I3D.

FVD needs thousands of clips for its covariances. The kernel distance does not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...metrics.distances import kernel
from ...networks.autoencoder import SCALE_FACTOR, AutoencoderKL
from ...training.sources import paper_world, world

REFERENCES = {"low": "low-quality", "clean": "clean"}
CLIPS = 256  # of each reference


class Distance:
    """Holds the features of the references; only seen pairs are compared, since low-quality videos show no others."""

    def __init__(self, autoencoder: AutoencoderKL, frames: int = 8):
        self.autoencoder = autoencoder
        self.references = {name: self.features(_truth(domain, frames)) for name, domain in REFERENCES.items()}
        # Of both, so that what hardly varies in one of them does not outweigh everything.
        both = torch.cat(list(self.references.values()))
        self.centre, self.spread = both.mean(0), both.std(0) + 1e-3

    @torch.no_grad()
    def features(self, clips: Sequence[np.ndarray]) -> Tensor:
        """`[N, 128]`: the mean latent over time, and the mean size of its changes, each at 4x4 places."""
        rows = []
        for clip in clips:
            pixels = torch.from_numpy(np.ascontiguousarray(clip)).permute(0, 3, 1, 2).float() / 127.5 - 1
            latent = F.avg_pool2d(SCALE_FACTOR * self.autoencoder.encode(pixels).chunk(2, 1)[0], 2)
            rows.append(torch.cat([latent.mean(0).flatten(), latent.diff(dim=0).abs().mean(0).flatten()]))
        return torch.stack(rows)

    def of(self, clips: Sequence[np.ndarray], wanted: Sequence[world.Scene]) -> dict[str, float]:
        """The distance to each reference; 0 on average for another draw from it."""
        some = [clip for clip, s in zip(clips, wanted, strict=True) if paper_world.seen(s.colour, s.shape)]
        features = (self.features(some) - self.centre) / self.spread
        return {
            name: round(kernel(features.numpy(), ((reference - self.centre) / self.spread).numpy()), 5)
            for name, reference in self.references.items()
        }


def _truth(domain: str, frames: int) -> list[np.ndarray]:
    """Clips of the seen pairs, uint8 `[T, 64, 64, 3]`."""
    reader, clips = paper_world.PaperWorld(domain, "clips"), []
    for index in range(len(reader)):
        scene = reader.scenes[reader.order[index]]
        if paper_world.seen(scene.colour, scene.shape):
            clip, _ = reader.sample(index)
            clips.append(clip[:: world.SOURCE_FRAMES // frames].permute(0, 2, 3, 1).numpy())
        if len(clips) == CLIPS:
            break
    return clips
