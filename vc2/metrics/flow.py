"""How far things move, how smoothly, and whether they stay what they are along the way.

Warping error: Lai et al., "Learning Blind Video Temporal Consistency" (ECCV 2018), the mean squared difference between
a frame and the next one brought back along the flow, where the flow there and back agrees (Sundaram et al., ECCV 2010).
What does not agree is left out, so that the worst clips lose their worst pixels: the share that was looked at and the
error over all pixels stand beside it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frames import as_tensor, best_device
from .metric import Clip, ClipMetric, Measure, moving

SHORT_SIDE = 256  # pixels
STEADY = 0.25  # pixels a frame, added to the speed so that what stands still has no ratio to speak of


def _measures(prefix: str) -> tuple[Measure, ...]:
    return (
        Measure(f"{prefix}flow", "pixels moved from frame to frame, mean, at the size that is looked at", "neither"),
        Measure(
            f"{prefix}warping_error", "mean squared difference (of 0..1) along the flow, where it is sure", "lower"
        ),
        Measure(f"{prefix}warping_error_unmasked", "the same over all pixels", "lower"),
        Measure(f"{prefix}warping_coverage", "share of the pixels where the flow is sure", "neither"),
        Measure(f"{prefix}jerk", "change of the flow from step to step over its size + 0.25: shaking", "lower"),
    )


class FlowMetric(ClipMetric):
    prefix = ""
    warning = "a frozen clip has the least warping error and jerk: read `flow` and `freeze` beside them"

    @abstractmethod
    def between(self, before: Tensor, after: Tensor) -> Tensor:
        """The flow `[2, H, W]` (x, y) in pixels from a frame `[3, H, W]` of 0..1 to another: what is at p before is at
        p + flow(p) after.
        """

    def measure(self, clip: Clip) -> dict[str, float]:
        frames = resized(as_tensor(moving(clip)))
        steps = list(pairwise(frames))
        forward = [self.between(before, after) for before, after in steps]
        backward = [self.between(after, before) for before, after in steps]
        errors, masks = [], []
        for (before, after), there, back in zip(steps, forward, backward, strict=True):
            errors.append((warped(after, there) - before).square().mean(0))
            masks.append(agreeing(there, back))
        error, mask = torch.stack(errors).double(), torch.stack(masks)
        figures = {
            "flow": float(torch.stack(forward).norm(dim=1).mean()),
            "warping_error_unmasked": float(error.mean()),
            "warping_coverage": float(mask.double().mean()),
        }
        if mask.any():
            figures["warping_error"] = float(error[mask].mean())
        if len(forward) > 1:
            figures["jerk"] = jerk(forward)
        return {f"{self.prefix}{name}": value for name, value in figures.items()}


class Flow(FlowMetric):
    """Dense inverse search (Kroeger et al., ECCV 2016): no weights, and good for small and middling movements."""

    name = "flow"
    measures = _measures("")
    library = ("opencv-python-headless",)
    modules = ("cv2",)
    extra = "evaluation-extra"
    preprocessing = "short side 256 pixels (smaller ones as they are); DIS, preset medium, on brightness"

    @cached_property
    def _dis(self):
        import cv2

        return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # type: ignore[attr-defined]

    def between(self, before: Tensor, after: Tensor) -> Tensor:
        return torch.from_numpy(self._dis.calc(*_grey([before, after]), None)).permute(2, 0, 1)


def _grey(frames: Iterable[Tensor]) -> list[np.ndarray]:
    weights = torch.tensor([0.299, 0.587, 0.114])
    return [(255 * torch.tensordot(weights, frame, 1)).round().byte().numpy() for frame in frames]


class Raft(FlowMetric):
    """RAFT (Teed and Deng, ECCV 2020), which the paper's evaluation uses."""

    name = "raft"
    prefix = "raft_"
    measures = _measures("raft_")
    table = "Table 1 (EvalCrafter: flow score, warping error)"
    library = ("torchvision",)
    modules = ("torchvision",)
    licence = "BSD-3-Clause"
    file = "raft_large_C_T_V2-1bb1363a.pth"
    preprocessing = "short side 256 pixels, sides filled up to multiples of 8; raft_large, 12 updates"

    @cached_property
    def network(self) -> torch.nn.Module:
        from torchvision.models.optical_flow import raft_large

        network = raft_large(weights=None)
        network.load_state_dict(torch.load(self.needed_file, map_location="cpu", weights_only=True))
        return network.eval().to(best_device())

    @torch.no_grad()
    def between(self, before: Tensor, after: Tensor) -> Tensor:
        height, width = before.shape[1:]
        # Its pyramid of correlations needs 128 pixels.
        rows, columns = (max(128, -(-side // 8) * 8) for side in (height, width))
        padding = (0, columns - width, 0, rows - height)
        device = next(self.network.parameters()).device
        pair = [F.pad(2 * frame[None] - 1, padding, mode="replicate").to(device) for frame in (before, after)]
        return self.network(*pair)[-1][0, :, :height, :width].float().cpu()


def resized(frames: Tensor) -> Tensor:
    """`[T, 3, H, W]` with a short side of at most 256 pixels."""
    short = min(frames.shape[2:])
    if short <= SHORT_SIDE:
        return frames
    size = [round(side * SHORT_SIDE / short) for side in frames.shape[2:]]
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True)


def warped(image: Tensor, flow: Tensor) -> Tensor:
    """`[C, H, W]`: at each p what the image has at p + flow(p), its border beyond the border."""
    height, width = image.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([(x + flow[0]) / max(1, width - 1), (y + flow[1]) / max(1, height - 1)], -1) * 2 - 1
    return F.grid_sample(image[None], places[None], padding_mode="border", align_corners=True)[0]


def agreeing(there: Tensor, back: Tensor) -> Tensor:
    """Where the way there and back ends where it began, bool `[H, W]`: |f + b|^2 <= 0.01 (|f|^2 + |b|^2) + 0.5; and
    within the picture.
    """
    height, width = there.shape[1:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    target_x, target_y = x + there[0], y + there[1]
    inside = (target_x >= 0) & (target_x <= width - 1) & (target_y >= 0) & (target_y <= height - 1)
    back = warped(back, there)
    gap, size = (there + back).square().sum(0), there.square().sum(0) + back.square().sum(0)
    return inside & (gap <= 0.01 * size + 0.5)


def jerk(flows: list[Tensor]) -> float:
    """The mean change from a flow to the next over their mean size + 0.25, of the movement as a whole: a steady pan has
    none.
    """
    flow = torch.stack(flows).double()
    change, size = flow.diff(dim=0).norm(dim=1).mean(), flow.norm(dim=1).mean()
    return float(change / (size + STEADY))
