"""The miniature's world: "a {colour} {shape} moving {direction}", 64x64, drawn with anti-aliased edges.

It is small enough to know: a frame is a colour, a shape and an integer position, so there are 6 x 4 x 25 x 25 different
frames (and three styles). A clip is 16 frames at 16 fps in which the object moves across the middle of the picture to
one side.

Its domains play the parts of the paper's data sets:

| domain | stands for | shows |
| --- | --- | --- |
| clean | | every colour and shape, clips or single frames of them; what the bundled miniature learns |
| low-quality | WebVid-10M | clips of the seen pairs of colour and shape, with noise and a watermark |
| stills | LAION-COCO, and what SD 2.1 learned from | clean pictures of the seen pairs |
| journeydb | JourneyDB | clean pictures of all pairs, in new styles too |
| laion | LAION-Aesthetics V2 | clean pictures of the seen pairs, in new styles too |
| everything | what an autoencoder is trained on | single frames of clean, low-quality and journeydb |
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from .media import fit
from .source import Reader, Sample, View

COLOURS = {
    "red": (228, 52, 48),
    "yellow": (248, 212, 60),
    "green": (60, 184, 88),
    "blue": (58, 112, 240),
    "purple": (168, 76, 216),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
BACKGROUND = (26, 28, 38)
SIZE = 64
REACH = 12  # the object's centre stays within this many pixels of the picture's
# A clip starts short of the middle and ends at the side that its caption names. Were it symmetric about the middle, a
# clip and its reverse would differ in nothing but the product of direction, place and time, which a network finds late.
START = 8
RADIUS = 15.0
SOURCE_FRAMES, SOURCE_FPS = 16, 16
STYLES = ("", "striped", "outlined")
NOISE = 12.0  # of the low-quality videos, of 255
WATERMARK, OPACITY = "video", 0.35


@dataclass(frozen=True)
class Scene:
    """What a clip shows: indices into COLOURS, SHAPES and DIRECTIONS, and the pixels that the object's path lies beside
    the picture's centre.
    """

    colour: int
    shape: int
    direction: int
    offset: int
    style = 0  # plain, as all moving objects are

    @property
    def caption(self) -> str:
        return f"a {list(COLOURS)[self.colour]} {SHAPES[self.shape]} moving {list(DIRECTIONS)[self.direction]}"

    def positions(self) -> Tensor:
        """Integer centre (x, y) relative to the picture's, in each of the source's frames: `[16, 2]`."""
        along = torch.linspace(-START, REACH, SOURCE_FRAMES).round().long()
        dx, dy = list(DIRECTIONS.values())[self.direction]
        across = torch.full_like(along, self.offset)
        return torch.stack([along * dx + across * abs(dy), along * dy + across * abs(dx)], -1)


@dataclass(frozen=True)
class Still:
    """What a picture shows: indices into COLOURS, SHAPES and STYLES, and the object's centre relative to the
    picture's.
    """

    colour: int
    shape: int
    style: int
    x: int
    y: int

    @property
    def caption(self) -> str:
        style = STYLES[self.style]
        article = "an" if style == "outlined" else "a"
        return " ".join(word for word in (article, style, list(COLOURS)[self.colour], SHAPES[self.shape]) if word)

    def positions(self) -> Tensor:
        """`[1, 2]`"""
        return torch.tensor([[self.x, self.y]])


@dataclass(frozen=True)
class Entry:
    """A sample of a domain: all frames of its scene, or the frame at `time`; with noise and a watermark if
    `low_quality`.
    """

    scene: Scene | Still
    time: int | None = None
    low_quality: bool = False


class World(Reader):
    """A domain's samples. Their order is shuffled once, always alike; `count` takes the first of them."""

    def __init__(self, domain: str, medium: str, count: int | None = None):
        domains = ("clean", "low-quality", "journeydb") if domain == "everything" else (domain,)
        self.entries = [entry for name in domains for entry in _entries(name, medium)]
        order = torch.randperm(len(self.entries), generator=torch.Generator().manual_seed(0)).tolist()
        self.order = order[:count] if count else order

    def __len__(self) -> int:
        return len(self.order)

    def identity(self) -> str:
        return f"{len(self.order)} of {len(self.entries)}"

    def sample(self, index: int) -> tuple[Tensor, str]:
        """Frames uint8 `[T, 3, 64, 64]` (16 of a clip, or 1) and their caption."""
        entry = self.entries[self.order[index]]
        scene, places = entry.scene, entry.scene.positions()
        if entry.time is not None:
            places = places[entry.time : entry.time + 1]
        ids = torch.ones(len(places), dtype=torch.long)
        frames = (render(scene.colour * ids, scene.shape * ids, places, scene.style) + 1) * 127.5
        if entry.low_quality:
            frames = frames + OPACITY * watermark() * (255 - frames)
            frames = frames + NOISE * torch.randn(frames.shape, generator=torch.Generator().manual_seed(index))
        return frames.round().clamp(0, 255).byte(), scene.caption

    def read(self, index: int, view: View) -> Sample:
        """In the size that is asked for; cropped in the middle, where the object is, wherever others are cropped."""
        pixels, caption = self.sample(index)
        stride, first = view.choose(len(pixels))
        frames = [
            fit(frame.permute(1, 2, 0).numpy(), view.width, view.height, (0.5, 0.5))
            for frame in pixels[first::stride][: view.frames]
        ]
        return Sample(torch.stack(frames), caption, SOURCE_FPS / stride)


def seen(colour: int, shape: int) -> bool:
    """Whether the low-quality videos show this pair: three in four, every colour and every shape among them."""
    return (colour + shape) % 4 != 0


def _entries(domain: str, medium: str) -> list[Entry]:
    """All samples of a domain: clips, single frames of clips, or stills."""
    places = range(-REACH, REACH + 1)
    pairs = [
        (colour, shape)
        for colour in range(len(COLOURS))
        for shape in range(len(SHAPES))
        if domain in ("clean", "journeydb") or seen(colour, shape)
    ]
    if medium == "clips" or domain in ("clean", "low-quality"):
        times = [None] if medium == "clips" else list(range(SOURCE_FRAMES))
        return [
            Entry(Scene(colour, shape, direction, offset), time, domain == "low-quality")
            for colour, shape in pairs
            for direction in range(len(DIRECTIONS))
            for offset in places
            for time in times
        ]
    styles = range(1) if domain == "stills" else range(len(STYLES))
    return [
        Entry(Still(colour, shape, style, x, y))
        for colour, shape in pairs
        for style in styles
        for x in places
        for y in places
    ]


@lru_cache(1)
def watermark() -> Tensor:
    """How much of each pixel the watermark covers, `[64, 64]`, 0..1: a word across the lower middle, as stock videos
    carry it.
    """
    picture = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(picture).text(
        (SIZE / 2, 0.72 * SIZE), WATERMARK, fill=255, font=ImageFont.load_default(16), anchor="mm"
    )
    return torch.from_numpy(np.array(picture, dtype=np.float32)) / 255


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


def render(colour: Tensor, shape: Tensor, centre: Tensor, style: int = 0) -> Tensor:
    """Frames `[N, 3, 64, 64]` in -1..1 from colour `[N]`, shape `[N]` and centre `[N, 2]` (x, y relative to the
    picture's centre).
    """
    axis = torch.arange(SIZE) + 0.5 - SIZE / 2
    x = axis[None, None, :] - centre[:, 0, None, None]
    y = axis[None, :, None] - centre[:, 1, None, None]

    def covered(x: Tensor, y: Tensor) -> Tensor:
        every = torch.stack([coverage(s, x, y) for s in range(len(SHAPES))])
        return every[shape, torch.arange(len(shape))][:, None]

    alpha = covered(x, y)
    if STYLES[style] == "striped":
        alpha = alpha * (0.35 + 0.65 * ((y[:, None] + RADIUS) % 6 < 3))
    elif STYLES[style] == "outlined":
        alpha = alpha * (1 - 0.85 * covered(1.5 * x, 1.5 * y))
    paint = torch.tensor(list(COLOURS.values()), dtype=torch.float32)[colour][:, :, None, None]
    ground = torch.tensor(BACKGROUND, dtype=torch.float32)[None, :, None, None]
    return (ground + alpha * (paint - ground)) / 127.5 - 1
