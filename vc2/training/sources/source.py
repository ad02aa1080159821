"""What a data source is to the rest: a section of the recipe that says where samples lie, and a reader of them.

A reader is a list, and not a stream: it has a length and reads the sample of an index. So a batch is a function of
(seed, step) alone, a run resumes at any step, and any number of processes reads the same batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from ..section import Section

if TYPE_CHECKING:  # a recipe is read without torch, which takes a second to import
    import numpy as np
    from torch import Tensor

MEDIA = ("clips", "images")
ENOUGH = 200  # samples from which on the share of unusable ones is judged


class SourceError(ValueError):
    """A data source that cannot be read; the message names the file, what was expected and what was found."""


class BrokenSample(Exception):  # noqa: N818 (it is skipped, not raised to the user)
    """One sample that cannot be used; the message says why, in one line that any file takes, whatever names are in
    it.
    """

    def __init__(self, message: str):
        super().__init__(" ".join(message.encode("utf-8", "backslashreplace").decode().split()))


@dataclass(frozen=True)
class View:
    """What is wanted of a sample: `frames` (None: all) of it, in what size, and how it is cropped.

    `uniform` are two numbers from 0 to below 1 that decide the stride within `strides` and the first frame; `place`
    (0..1 of what is cut off, across and down) is where it is cropped. `flipped`: left and right are exchanged, by who
    asks, except in a source that has stored both.
    """

    frames: int | None
    strides: tuple[int, int]
    uniform: tuple[float, float]
    width: int
    height: int
    place: tuple[float, float]
    flipped: bool = False

    def choose(self, total: int) -> tuple[int, int]:
        """(stride, first frame) in a video of `total` frames: the stride uniform within `strides` as far as the length
        allows, then the start. Raises BrokenSample where even the smallest stride needs more frames than there are.
        """
        frames, (low, high) = self.frames or total, self.strides
        if frames > 1:
            high = min(high, (total - 1) // (frames - 1))
        if high < low or total < frames:
            raise BrokenSample(f"has {total} frames, {frames} at a stride of {low} need {(frames - 1) * low + 1}")
        stride = low + int(self.uniform[0] * (high - low + 1))
        return stride, int(self.uniform[1] * (total - (frames - 1) * stride))


@dataclass
class Sample:
    """`frames`: uint8 pixels `[T, 3, H, W]`, or latent moments `[T, 8, h, w]` of a prepared source, then `text` may
    hold the caption's features `[77, D]`. `fps`: of these frames, so the source's divided by the stride.
    """

    frames: Tensor
    caption: str
    fps: float
    text: Tensor | None = None
    skipped: list[str] = field(default_factory=list)  # why samples before it could not be used


CONTENT = "content "


def is_content(identity: str) -> bool:
    """Whether it says what data is, and not, as 0.2.0's, where it lies and since when."""
    return identity.startswith(CONTENT)


class Reader(ABC):
    """The samples of one source, as clips or as images."""

    blocks: Sequence[int] | None = None  # lengths of the runs of indices in one file; None: order on disk is no matter
    empty_text: Tensor | None = None  # features of the empty caption, of a source whose captions are prepared

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def identity(self) -> str:
        """Other files, another identity: by where they lie, their names, sizes and times. What 0.2.0 knew data by."""

    def content(self) -> str:
        """Other data, another content, wherever it lies; of files by their names below the source's folder, their sizes
        and some of their bytes, of captions by all.
        """
        return self.identity()

    def sizes(self) -> np.ndarray | None:
        """(width, height) of each sample, 0 where it is not known: `[N, 2]`. None where it was not asked for, or cannot
        be known before a sample is read.
        """
        return None

    @abstractmethod
    def read(self, index: int, view: View) -> Sample:
        """Raises BrokenSample."""


class Source(Section):
    """Where samples come from. `prepared`: read what `python -m vc2.training prepare` has encoded of them, latents or
    latents and captions. `weight`: how many of its samples are read, relative to the other sources of a list.
    """

    media: ClassVar[tuple[str, ...]] = MEDIA  # what it can be a source of
    stored_whole: ClassVar[bool] = False  # prepared clips have all their frames, so that each epoch draws its stride
    location: ClassVar[tuple[str, ...]] = ()  # the keys that say where it lies, and not what it is
    prepared: Literal["no", "moments", "moments and text"] = "no"
    weight: float = Field(1.0, gt=0)
    kind: str

    @property
    def members(self) -> tuple[Source, ...]:
        """The sources that it is made of: itself, or those of a list."""
        return (self,)

    @property
    def label(self) -> str:
        """As the table of recipes names it."""
        return self.kind

    def selecting(self) -> dict[str, Any]:
        """What decides which samples it has and what is made of them, without what has no effect: as 0.2.0 wrote it
        where nothing new is asked for.
        """
        out = self.model_dump(mode="json")
        out.pop("weight")
        if out.get("select", 0) is None:
            out.pop("select")
        return out

    def open(self, medium: str, index_folder: Path, sized: bool = False) -> Reader:
        """The source as "clips" or "images"; `index_folder` keeps what took long to find out; `sized`: with the sizes
        of its samples, where they can be known. Raises SourceError.
        """
        raise NotImplementedError
