"""A rule-based judge of the procedural worlds: which colour, shape and direction does a clip show, how does it move?

It takes the watermark off first, looks for what differs from the background, and never trusts the prompt. A clip in
which no single object is found is wrong on every count, and so is one in which the object does not move steadily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import label

from ..training.sources import world
from . import watermark

FLOOR = 45.0  # distance from the background, in RGB of 0..255, below which nothing is an object
MIN_AREA, MAX_AREA = 200, 1400  # pixels; the world's shapes have 400 to 730
OVERLAP = 0.6  # intersection over union with a shape's template from which on it is that shape
STEADY = 0.5  # share of the movement that a constant velocity must explain
STILL = 0.2  # pixels a frame below which nothing moves


@dataclass(frozen=True)
class Verdict:
    """What was seen; None where nothing was. `speed` is in pixels a frame, `tremble` the root mean square distance from
    the fitted straight path in pixels; both are nan where there is no object.
    """

    colour: str | None
    shape: str | None
    direction: str | None
    detected: float  # share of frames with one object
    speed: float = np.nan
    tremble: float = np.nan

    def matches(self, scene: world.Scene) -> dict[str, bool]:
        """Right or wrong on each attribute, and on all together."""
        right = {
            "colour": self.colour == list(world.COLOURS)[scene.colour],
            "shape": self.shape == world.SHAPES[scene.shape],
            "direction": self.direction == list(world.DIRECTIONS)[scene.direction],
        }
        return {**right, "joint": all(right.values())}

    def motion_error(self, speed: float) -> float:
        """How far the movement is from a steady one of `speed` pixels a frame, in whatever direction: 0 is none, 1 is
        that of a still picture, and the most there is.
        """
        if np.isnan(self.speed):
            return 1.0
        return float(min(1.0, np.hypot(self.speed / speed - 1, self.tremble / speed)))


@dataclass(frozen=True)
class Seen:
    """A clip without its watermark, float32 `[T, 64, 64, 3]`, its background's colour `[3]`, and where each frame shows
    an object: bool `[T, 64, 64]`, nothing where there is none or more than one.
    """

    clip: np.ndarray
    opacity: float
    background: np.ndarray
    masks: np.ndarray

    @property
    def times(self) -> list[int]:
        """Frames with an object."""
        return [int(i) for i in np.flatnonzero(self.masks.any((1, 2)))]

    @property
    def detected(self) -> bool:
        return len(self.times) >= 0.75 * len(self.clip)


def look_at(clip: np.ndarray) -> Seen:
    """Find the object in a clip, uint8 `[T, 64, 64, 3]`."""
    opacity = watermark.opacity(clip)
    clean = watermark.removed(clip, opacity)
    background = np.median(clean.reshape(-1, 3), axis=0)
    distance = np.linalg.norm(clean - background, axis=-1)
    # An object covers a tenth of the picture and more, so that this is within it; half of it lies on its edge.
    threshold = max(FLOOR, 0.5 * float(np.percentile(distance, 97)))
    return Seen(clean, opacity, background, np.stack([_object(frame > threshold) for frame in distance]))


def _object(mask: np.ndarray) -> np.ndarray:
    """The one connected region that is large enough."""
    regions, count = label(mask)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    large = np.flatnonzero(sizes >= MIN_AREA)
    if len(large) != 1 or sizes[large[0]] > MAX_AREA:
        return np.zeros_like(mask)
    return regions == large[0] + 1


def judge(clip: np.ndarray) -> Verdict:
    """Judge a clip, uint8 `[T, 64, 64, 3]`."""
    return verdict(look_at(clip))


def verdict(seen: Seen) -> Verdict:
    detected, times = len(seen.times) / len(seen.clip), seen.times
    if not seen.detected:
        return Verdict(None, None, None, detected)
    colour = _colour(contrast(seen))
    direction, speed, tremble = _motion([seen.masks[i] for i in times], times)
    return Verdict(colour, _mode([_shape(seen.masks[i]) for i in times]), direction, detected, speed, tremble)


def contrast(seen: Seen) -> np.ndarray:
    """The object's colour less the background's, `[3]`: the median over the frames of the object's median, since edges
    are mixtures.
    """
    return np.median([np.median(seen.clip[i][seen.masks[i]], axis=0) for i in seen.times], axis=0) - seen.background


def _mode(values: Sequence[str | None]) -> str | None:
    return max(sorted(set(values), key=str), key=values.count)


def _colour(difference: np.ndarray) -> str:
    """The named colour whose difference from the world's background, faded as it may be, is nearest."""

    def miss(name: str) -> float:
        pure = np.subtract(world.COLOURS[name], world.BACKGROUND)
        strength = np.clip(difference @ pure / (pure @ pure), 0.3, 1.1)
        return float(np.linalg.norm(difference - strength * pure) / strength)

    return min(world.COLOURS, key=miss)


def _templates() -> list[np.ndarray]:
    axis = torch.arange(world.SIZE) + 0.5 - world.SIZE / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return [world.coverage(i, x, y).numpy() > 0.5 for i in range(len(world.SHAPES))]


TEMPLATES = _templates()


def _shape(mask: np.ndarray) -> str | None:
    """The shape with the largest intersection over union, over displacements of up to 2 pixels between the bounding
    boxes' centres; None where none is near.
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
    best_name = max(overlaps, key=overlaps.__getitem__)
    return best_name if overlaps[best_name] >= OVERLAP else None


def _box_centre(mask: np.ndarray) -> tuple[float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (rows[0] + rows[-1]) / 2, (columns[0] + columns[-1]) / 2


def _motion(masks: list[np.ndarray], times: list[int]) -> tuple[str | None, float, float]:
    """Direction, speed and tremble of the straight line fitted to the object's centre. No direction where it stands
    still, or where the line explains too little: shuffled frames have a line, too.
    """
    centres = np.array([np.argwhere(mask).mean(0)[::-1] for mask in masks])  # (x, y)
    velocity, start = np.polyfit(times, centres, 1)
    rest = centres - np.outer(times, velocity) - start
    speed, tremble = float(np.linalg.norm(velocity)), float(np.sqrt((rest**2).sum(1).mean()))
    moved = ((centres - centres.mean(0)) ** 2).sum()
    if speed < STILL or (rest**2).sum() > (1 - STEADY) * moved:
        return None, speed, tremble
    return max(world.DIRECTIONS, key=lambda name: float(velocity @ np.array(world.DIRECTIONS[name]))), speed, tremble
