"""A rule-based judge of the procedural world: which colour, shape and direction does a clip show?

It looks for pixels that differ from the background, and never trusts the prompt. A clip in which no object is found is
wrong on every count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..training.sources import world

THRESHOLD = 60.0  # distance from the background colour, in RGB of 0..255, from which a pixel is the object's
MIN_AREA, MAX_AREA = 120, 1400  # pixels; the world's shapes have 400 to 730


@dataclass(frozen=True)
class Verdict:
    """What was seen; None where nothing was."""

    colour: str | None
    shape: str | None
    direction: str | None
    detected: float  # share of frames with an object

    def matches(self, scene: world.Scene) -> dict[str, bool]:
        """Right or wrong on each attribute, and on all together."""
        right = {
            "colour": self.colour == list(world.COLOURS)[scene.colour],
            "shape": self.shape == world.SHAPES[scene.shape],
            "direction": self.direction == list(world.DIRECTIONS)[scene.direction],
        }
        return {**right, "joint": all(right.values())}


def object_mask(frame: np.ndarray) -> np.ndarray:
    """Where a frame uint8 `[H, W, 3]` shows the object: bool `[H, W]`."""
    return np.linalg.norm(frame.astype(np.float32) - np.array(world.BACKGROUND, np.float32), axis=-1) > THRESHOLD


def judge(clip: np.ndarray) -> Verdict:
    """Judge a clip, uint8 `[T, 64, 64, 3]`."""
    masks = [object_mask(frame) for frame in clip]
    seen = [i for i, mask in enumerate(masks) if MIN_AREA <= mask.sum() <= MAX_AREA]
    detected = len(seen) / len(clip)
    if detected < 0.75:
        return Verdict(None, None, None, detected)
    colours = [_colour(clip[i], masks[i]) for i in seen]
    shapes = [_shape(masks[i]) for i in seen]
    return Verdict(_mode(colours), _mode(shapes), _direction([masks[i] for i in seen], seen), detected)


def _mode(values: list[str]) -> str:
    return max(sorted(set(values)), key=values.count)


def _colour(frame: np.ndarray, mask: np.ndarray) -> str:
    """The named colour nearest to the object's median (edges are mixtures, the median is not)."""
    median = np.median(frame[mask], axis=0)
    return min(world.COLOURS, key=lambda name: float(np.linalg.norm(median - world.COLOURS[name])))


def _templates() -> list[np.ndarray]:
    axis = torch.arange(world.SIZE) + 0.5 - world.SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return [world.coverage(i, x, y).numpy() > 0.5 for i in range(len(world.SHAPES))]


TEMPLATES = _templates()


def _shape(mask: np.ndarray) -> str:
    """The shape with the largest intersection over union, over displacements of up to 2 pixels between the bounding
    boxes' centres.
    """
    overlaps = {}
    for name, template in zip(world.SHAPES, TEMPLATES, strict=True):
        (cy, cx), (ty, tx) = _box_centre(mask), _box_centre(template)
        best = 0.0
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                moved = np.roll(template, (round(cy - ty) + dy, round(cx - tx) + dx), (0, 1))
                best = max(best, float((moved & mask).sum() / (moved | mask).sum()))
        overlaps[name] = best
    return max(overlaps, key=overlaps.__getitem__)


def _box_centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2


def _direction(masks: list[np.ndarray], times: list[int]) -> str | None:
    """The direction of the line fitted to the object's centre; None where it moves less than a fifth of a pixel a
    frame.
    """
    centres = np.array([np.argwhere(mask).mean(0)[::-1] for mask in masks])  # (x, y)
    velocity = np.polyfit(times, centres, 1)[0]
    if np.linalg.norm(velocity) < 0.2:
        return None
    return max(world.DIRECTIONS, key=lambda name: float(velocity @ np.array(world.DIRECTIONS[name])))
