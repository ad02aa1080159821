"""A look at the first batch as the network gets it: most mistakes with data show there."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from ..files.grid import side_by_side
from ..files.video import write_video
from ..networks.autoencoder import SCALE_FACTOR
from ..pipeline import to_pixels
from .data.batches import Batch
from .encoders import Encoders

log = logging.getLogger(__name__)
SAMPLES = 8


@torch.no_grad()
def write(encoders: Encoders, batch: Batch, folder: Path) -> None:
    """`first-batch.mp4` with captions, decoded where it holds latents."""
    clips = []
    for frames in batch.frames[:SAMPLES]:
        if frames.dtype == torch.uint8:
            clips.append(frames.permute(0, 2, 3, 1).numpy())
        else:
            z = frames.chunk(2, 1)[0].float().transpose(0, 1).to(encoders.device)
            clips.append(to_pixels(encoders.autoencoder, z * SCALE_FACTOR))
    zoom = max(1, 256 // clips[0].shape[2])  # captions want room
    clips = [clip.repeat(zoom, 1).repeat(zoom, 2) for clip in clips]
    labels = [
        f"{caption or '(no caption)'} | fps {int(fps)}"
        for caption, fps in zip(batch.captions[:SAMPLES], batch.fps[:SAMPLES], strict=True)
    ]
    # As a video for images too: one name to look for.
    log.info("the first batch is in %s", write_video(folder / "first-batch.mp4", side_by_side(clips, labels, 4), 8))
