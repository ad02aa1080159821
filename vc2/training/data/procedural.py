"""Procedural clips: "a {colour} {shape} moving {direction}", 64x64, drawn with anti-aliased edges.

The whole world is small enough to know: a frame is a colour, a shape and an integer position, so there are 6 x 4 x 25 x 25 different frames.
A clip is 16 frames at 16 fps in which the object moves across the middle of the picture to one side.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

COLOURS = {
    "red": (228, 52, 48), "yellow": (248, 212, 60), "green": (60, 184, 88),
    "blue": (58, 112, 240), "purple": (168, 76, 216), "white": (240, 240, 240),
}  # fmt: skip
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKGROUND = (26, 28, 38)
SIZE = 64
REACH = 12  # the object's centre stays within this many pixels of the picture's
# A clip starts short of the middle and ends at the side that its caption names. Were it symmetric about the middle, a clip and its reverse would differ in
# nothing but the product of direction, place and time, which a network finds late.
START = 8
RADIUS = 15.0
SOURCE_FRAMES, SOURCE_FPS = 16, 16


@dataclass(frozen=True)
class Scene:
    """What one clip shows: indices into COLOURS, SHAPES and DIRECTIONS, and the pixels it is off its line."""

    colour: int
    shape: int
    direction: int
    offset: int

    @property
    def caption(self) -> str:
        return f"a {list(COLOURS)[self.colour]} {SHAPES[self.shape]} moving {list(DIRECTIONS)[self.direction]}"

    def positions(self) -> Tensor:
        """Integer centre (x, y) relative to the picture's, in each of the source's frames: `[16, 2]`."""
        along = torch.linspace(-START, REACH, SOURCE_FRAMES).round().long()
        dx, dy = list(DIRECTIONS.values())[self.direction]
        across = torch.full_like(along, self.offset)
        return torch.stack([along * dx + across * abs(dy), along * dy + across * abs(dx)], -1)


def captions() -> list[str]:
    """Every caption of the world."""
    return [Scene(c, s, d, 0).caption for c in range(len(COLOURS)) for s in range(len(SHAPES)) for d in range(len(DIRECTIONS))]


def random_scene(generator: torch.Generator) -> Scene:
    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    return Scene(draw(0, len(COLOURS)), draw(0, len(SHAPES)), draw(0, len(DIRECTIONS)), draw(-REACH, REACH + 1))


def coverage(shape: int, x: Tensor, y: Tensor) -> Tensor:
    """How much of each pixel the shape covers, 0..1: `x`, `y` are pixel distances from its centre, y downwards."""
    r = RADIUS
    ax, ay = x.abs(), y.abs()
    if SHAPES[shape] == "circle":
        distance = (x**2 + y**2).sqrt() - r
    elif SHAPES[shape] == "square":
        distance = torch.maximum(ax, ay) - 0.9 * r
    elif SHAPES[shape] == "triangle":
        # Apex at (0, -1.1 r), base from (-r, 0.9 r) to (r, 0.9 r); (0.894, -0.447) is the right side's unit normal.
        distance = torch.maximum(0.894 * ax - 0.447 * (y + 1.1 * r), y - 0.9 * r)
    else:
        arm = 0.36 * r
        distance = torch.minimum(torch.maximum(ax - r, ay - arm), torch.maximum(ay - r, ax - arm))
    return (0.5 - distance).clamp(0, 1)


def render(colour: Tensor, shape: Tensor, centre: Tensor) -> Tensor:
    """Frames `[N, 3, 64, 64]` in -1..1 from colour `[N]`, shape `[N]` and centre `[N, 2]` (x, y relative to the picture's centre)."""
    axis = torch.arange(SIZE) + 0.5 - SIZE / 2
    x = axis[None, None, :] - centre[:, 0, None, None]
    y = axis[None, :, None] - centre[:, 1, None, None]
    alpha = torch.stack([coverage(s, x, y) for s in range(len(SHAPES))])[shape, torch.arange(len(shape))][:, None]
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour][:, :, None, None]
    ground = torch.tensor(BACKGROUND, dtype=torch.float32)[None, :, None, None]
    return (ground + alpha * (paint - ground)) / 127.5 - 1
