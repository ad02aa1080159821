"""FVD (Unterthiner et al., 2018): how far clips are from a reference's, by features of I3D."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F

from . import distances
from .frames import as_tensor, best_device
from .metric import Clip, CorpusMetric, Measure, moving

SIZE = 224
FRAMES = 16  # as many as the paper's models make: clips of other lengths have other features
LEAST_FRAMES = 10  # fewer do not outlast I3D's strides


class I3D(CorpusMetric):
    extractor = "i3d"
    table = "supplement's Table 1 (MSR-VTT, zero-shot: FVD on 2,048 clips)"
    file = "i3d_torchscript.pt"
    needs_reference = True
    preprocessing = "first 16 frames, stretched to 224x224 (bilinear), -1..1; the 400 values before the softmax"

    @cached_property
    def _network(self) -> torch.jit.ScriptModule:
        return torch.jit.load(str(self.needed_file), map_location=best_device()).eval()

    @torch.no_grad()
    def features(self, clip: Clip) -> np.ndarray:
        frames = as_tensor(moving(clip, LEAST_FRAMES)[:FRAMES])
        frames = F.interpolate(frames, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        video = (2 * frames - 1).transpose(0, 1)[None].to(best_device())
        return self._network(video, rescale=False, resize=False, return_features=True).float().cpu().numpy()


class FVD(I3D):
    name = "fvd"
    measures = (Measure("fvd", "Frechet distance of I3D's features to the reference's", "lower"),)
    least = 256
    warning = "it grows as clips get fewer; bring the reference to the frame rate of the clips, and compare equal n"

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        return {"fvd": distances.frechet(np.concatenate(features), np.concatenate(reference))}


class KVD(I3D):
    name = "kvd"
    measures = (Measure("kvd", "kernel distance of I3D's features to the reference's", "lower"),)
    least = 16

    def measure(self, features: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> Mapping[str, float]:
        return {"kvd": distances.kernel(np.concatenate(features), np.concatenate(reference))}
