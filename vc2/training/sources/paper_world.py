"""The world of the paper in miniature: what `world` draws, with a low quality that an autoencoder cannot wash off.

A clip shows "a {colour} {shape} moving {direction}", as in `world`. The domains play the parts of the paper's data:

| domain | stands for | shows |
| --- | --- | --- |
| low-quality | WebVid-10M | the seen pairs of colour and shape: blurred, washed out, tinted, blotched, watermarked |
| stills | LAION-COCO, and what SD 2.1 learned from | clean pictures of the seen pairs |
| journeydb | JourneyDB | clean pictures of all pairs |
| laion | LAION-Aesthetics V2 | clean pictures of the seen pairs (as `stills`, in other places) |
| clean | what nobody has | clean clips of all pairs: the judge's ground truth |
| everything | what an autoencoder is trained on | single frames of all pairs, from clean to low quality |

Every defect is as wide as an autoencoder cell (8 pixels) or is one number a picture: noise of single pixels, and the
blocks of a JPEG, do not survive the way through 8x8 latents, and what does not survive cannot be learned or unlearned.
Of 24 pairs 16 are held out. Captions of stills name a direction too, which says nothing about the picture: else a base
whose spatial layers saw stills alone (P-base) would have never read these words.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from . import world
from .files import fingerprint
from .media import fit
from .source import Reader, Sample, View

VERSION = 1  # raised whenever a sample changes that the constants below do not tell of

# Colour and shape of the videos' objects: every colour with one shape or two, every shape with two colours.
SEEN = {(0, 0), (4, 0), (1, 1), (5, 1), (2, 2), (0, 2), (3, 3), (1, 3)}

CELL = 4  # pixels of a watermark's dot: its strokes are half a cell of the autoencoder wide
WATERMARK = (
    "###.#...###.###",
    "#...#....#..#.#",
    "#...#....#..###",
    "#...#....#..#..",
    "###.###.###.#..",
)
WATERMARK_TOP = 38  # pixels


@dataclass(frozen=True)
class Look:
    """How bad a picture looks; all zeros is clean. Levels are of 255.

    `blur`: sigma in pixels. `fade`: how far colours are drawn towards `FADED`. `tint`: the colour cast. `blotches`:
    standard deviation of a field of brightness with a value every 8 pixels, the same in all frames of a clip.
    `watermark`: how much of the picture the watermark's strokes hide.
    """

    blur: float = 0.0
    fade: float = 0.0
    tint: float = 0.0
    blotches: float = 0.0
    watermark: float = 0.0

    def scaled(self, defects: float, watermark: float) -> Look:
        """A share of the defects and of the watermark."""
        scaled = {name: defects * value for name, value in asdict(self).items()}
        return replace(Look(**scaled), watermark=watermark * self.watermark)


CLEAN = Look()
LOW = Look(blur=1.6, fade=0.45, tint=20.0, blotches=14.0, watermark=0.4)
FADED = 96.0
TINT = (1.0, 0.3, -1.0)  # a yellow cast


@dataclass(frozen=True)
class Still:
    """A picture: indices into COLOURS, SHAPES and DIRECTIONS, and the object's centre relative to the picture's."""

    colour: int
    shape: int
    direction: int
    x: int
    y: int

    @property
    def caption(self) -> str:
        return world.Scene(self.colour, self.shape, self.direction, 0).caption

    def positions(self) -> Tensor:
        """`[1, 2]`"""
        return torch.tensor([[self.x, self.y]])


class PaperWorld(Reader):
    """A domain's samples, in an order shuffled once; `count` takes the first of them."""

    def __init__(self, domain: str, medium: str, count: int | None = None):
        self.domain = domain
        self.scenes = _clips(domain) if medium == "clips" else _stills(domain)
        # Domains that show the same scenes show them in another order, so that a few are not the same few.
        seed = int(fingerprint(domain, medium)[:8], 16)
        order = torch.randperm(len(self.scenes), generator=torch.Generator().manual_seed(seed)).tolist()
        self.order = order[:count] if count else order

    def __len__(self) -> int:
        return len(self.order)

    def identity(self) -> str:
        return f"{len(self.order)} of {len(self.scenes)}, world {world_hash()}"

    def look(self, index: int) -> Look:
        """Of the autoencoder's pictures a third are clean, a third low quality, and the others between the two."""
        if self.domain == "low-quality":
            return LOW
        if self.domain == "everything" and index % 3:
            defects, watermark = torch.rand(2, generator=_generator(index, 1)).tolist()
            return LOW if index % 3 == 1 else LOW.scaled(defects, watermark)
        return CLEAN

    def sample(self, index: int) -> tuple[Tensor, str]:
        """Frames uint8 `[T, 3, 64, 64]` (16 of a clip, or 1) and their caption."""
        scene = self.scenes[self.order[index]]
        return draw(scene, self.look(index), _generator(index, 0)), scene.caption

    def read(self, index: int, view: View) -> Sample:
        """In the size that is asked for, cropped in the middle."""
        pixels, caption = self.sample(index)
        stride, first = view.choose(len(pixels))
        frames = [
            fit(frame.permute(1, 2, 0).numpy(), view.width, view.height, (0.5, 0.5))
            for frame in pixels[first::stride][: view.frames]
        ]
        return Sample(torch.stack(frames), caption, world.SOURCE_FPS / stride)


def _generator(index: int, purpose: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * index + purpose)


def _pairs(domain: str) -> list[tuple[int, int]]:
    """Colour and shape of what a domain shows."""
    everything = domain in ("clean", "journeydb", "everything")
    return [(c, s) for c in range(len(world.COLOURS)) for s in range(len(world.SHAPES)) if everything or seen(c, s)]


def _clips(domain: str) -> list[world.Scene | Still]:
    return [
        world.Scene(colour, shape, direction, offset)
        for colour, shape in _pairs(domain)
        for direction in range(len(world.DIRECTIONS))
        for offset in range(-world.REACH, world.REACH + 1)
    ]


def _stills(domain: str) -> list[world.Scene | Still]:
    places = range(-world.REACH, world.REACH + 1)
    return [
        Still(colour, shape, direction, x, y)
        for colour, shape in _pairs(domain)
        for direction in range(len(world.DIRECTIONS))
        for x in places
        for y in places
    ]


def seen(colour: int, shape: int) -> bool:
    """Whether the low-quality videos show this pair."""
    return (colour, shape) in SEEN


def draw(scene: world.Scene | Still, look: Look, generator: torch.Generator) -> Tensor:
    """All frames of a scene, uint8 `[T, 3, 64, 64]`."""
    places = scene.positions()
    ids = torch.ones(len(places), dtype=torch.long)
    frames = (world.render(scene.colour * ids, scene.shape * ids, places) + 1) * 127.5
    return degrade(frames, look, generator).round().clamp(0, 255).byte()


def degrade(frames: Tensor, look: Look, generator: torch.Generator) -> Tensor:
    """Frames `[T, 3, 64, 64]` of 0..255, as they look through `look`; the blotches are drawn from `generator`."""
    if look.blur:
        frames = gaussian_blur(frames, [2 * round(3 * LOW.blur) + 1] * 2, [look.blur] * 2)
    frames = frames + look.fade * (FADED - frames) + look.tint * torch.tensor(TINT)[:, None, None]
    field = look.blotches * torch.randn(1, 1, world.SIZE // 8, world.SIZE // 8, generator=generator)
    frames = frames + F.interpolate(field, scale_factor=8, mode="bilinear", align_corners=False)
    return frames + look.watermark * watermark() * (255 - frames)


@lru_cache(1)
def watermark() -> Tensor:
    """How much of each pixel the watermark covers, `[64, 64]`, 0 or 1: a word across the lower middle, as stock videos
    carry it.
    """
    dots = torch.tensor([[float(dot == "#") for dot in row] for row in WATERMARK])
    word = dots.repeat_interleave(CELL, 0).repeat_interleave(CELL, 1)
    left = (world.SIZE - word.shape[1]) // 2
    right, bottom = world.SIZE - word.shape[1] - left, world.SIZE - word.shape[0] - WATERMARK_TOP
    return F.pad(word, (left, right, WATERMARK_TOP, bottom))


@lru_cache(1)
def world_hash() -> str:
    """Sixteen hexadecimal digits that tell this world from every other: of its version and all its constants."""
    drawing = [world.COLOURS, world.SHAPES, world.DIRECTIONS, world.BACKGROUND, world.SIZE, world.REACH, world.START]
    path = [world.RADIUS, world.SOURCE_FRAMES, world.SOURCE_FPS]
    look = [asdict(LOW), FADED, TINT, WATERMARK, WATERMARK_TOP, CELL]
    return fingerprint(json.dumps([VERSION, drawing, path, look, sorted(SEEN)]))
