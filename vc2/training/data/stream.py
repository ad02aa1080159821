"""One medium's samples as a run reads them: how each is cut is drawn, and others stand in for broken ones."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ...plural import plural
from ..recipe import Recipe
from ..rng import SAMPLE, SPARE, VALIDATION, numpy_generator
from ..sources.source import MEDIA, BrokenSample, Sample, SourceError, View
from .buckets import Buckets, nearest
from .order import order_of
from .plan import Step
from .prepared import Prepared

log = logging.getLogger(__name__)

TRIES = 20  # samples to read in place of a broken one before giving up


def by_size(sample: Sample) -> tuple[int, ...]:
    """(height, width) of its frames, to sort by."""
    return tuple(sample.frames.shape[-2:])


def mirrored(frames: torch.Tensor) -> torch.Tensor:
    """Left and right exchanged, alike in all frames `[T, C, H, W]`."""
    return frames.flip(-1)


class Stream:
    """The samples of `data.clips` or `data.images`, or of the `number`-th source of those lists. With fingerprints of
    the networks, what is prepared of them is read; without, the source itself.
    """

    def __init__(
        self, recipe: Recipe, medium: str, cache: Path, networks: dict[str, str] | None = None, number: int = 0
    ):
        data, self.medium, self.kind = recipe.data, medium, MEDIA.index(medium)
        self.recipe, members = recipe, data.sources[medium].members
        self.section, self.name = members[number], f"data.{medium}" + (f".{number}" if len(members) > 1 else "")
        # What images are cropped to; clips have one size.
        self.sizes = data.image_sizes if medium == "images" else data.image_sizes[:1]
        self.source = self.section.open(medium, cache / "index", sized=len(self.sizes) > 1)
        self.content = self.source.content()  # what its data is, wherever it lies
        if self.section.prepared != "no" and networks is not None:
            self.source = Prepared.find(recipe, medium, self.section, self.source, cache, networks)
        # That of the first is 0.2.0's.
        key = (number, 0, 1) if number else ()
        self.order = order_of(len(self.source), data.held_out, recipe.seed, self.source.blocks, data.order, key)
        if not len(self.order):
            raise SourceError(f"{self.name}: the source is empty")
        self.buckets = self._buckets(number) if len(self.sizes) > 1 else None
        # As `data.lengths`; images are clips of one frame.
        self.lengths = data.lengths if medium == "clips" else ((1, 1, 1),)

    def _buckets(self, number: int) -> Buckets:
        sizes = self.source.sizes()
        if sizes is None:
            raise SourceError(
                f"{self.name}: data.buckets needs to know the size of every image before it is read, which"
                f" {self.section.kind} does not tell; use folder, shards or manifest, or leave data.buckets out"
            )
        data = self.recipe.data
        buckets = Buckets(
            nearest(sizes, self.sizes), len(self.sizes), self.order.held_out, self.recipe.seed, data.order, number
        )
        for size, count in zip(self.sizes, buckets.counts(), strict=True):
            log.info("%s: %s for %dx%d", self.name, plural(count, "image"), *size)
        return buckets

    def files(self) -> str:
        """What its data is by where it lies and since when, as 0.2.0 recorded it."""
        return self.source.identity()

    def shares(self) -> list[float]:
        """The share of each bucket in its samples."""
        counts = self.buckets.counts() if self.buckets else [len(self.order)]
        return [count / sum(counts) for count in counts]

    def index(self, position: int, bucket: int) -> int:
        """The sample that is read at a position of a bucket's run."""
        return self.buckets.at(bucket, position) if self.buckets else self.order[position]

    def _spare(self, rng: np.random.Generator, bucket: int) -> int:
        """Any sample to train on."""
        if self.buckets:
            return int(rng.choice(self.buckets.members[bucket]))
        return self.order.training(int(rng.integers(len(self.order))))

    def read(
        self, index: int, frames: int | None, strides: tuple[int, int], rng: np.random.Generator, flip: float = 0.0
    ) -> Sample:
        """The sample of an index, its stride, start, crop and whether it is flipped (at a chance of `flip`) drawn from
        `rng`, at a whole number of frames a second. Raises BrokenSample.
        """
        data, uniform, place = self.recipe.data, (rng.random(), rng.random()), (rng.random(), rng.random())
        place = place if data.crop == "random" else (0.5, 0.5)
        flipped = flip > 0 and rng.random() < flip
        width, height = self.sizes[self.buckets.bucket[index] if self.buckets else 0]
        try:
            sample = self.source.read(index, View(frames, strides, uniform, width, height, place, flipped))
            if flipped and sample.frames.dtype == torch.uint8:  # of latents a source has stored both
                sample.frames = mirrored(sample.frames)
            return replace(sample, fps=round(sample.fps))
        except (BrokenSample, MemoryError):
            raise
        except Exception as error:  # one sample must not end a run
            why = f"{type(error).__name__}: {error}"
            raise BrokenSample(f"data.{self.medium}, sample {index}, could not be read: {why}") from error

    def read_to_store(self, index: int) -> Sample:
        """The sample of an index as `prepare` encodes it: all of it where that is little, else a clip of the longest of
        `data.lengths`. Raises BrokenSample.
        """
        rng = numpy_generator(self.recipe.seed, SAMPLE, self.kind, index)
        if self.section.stored_whole:
            return self.read(index, None, (1, 1), rng)
        frames, low, high = max(self.lengths)
        return self.read(index, frames, (low, high), rng)

    def draw(self, step: Step, slot: int, own: int | None = None) -> Sample:
        """The sample of a slot; another in place of one that is broken, with why. `own`: its position in this source's
        run, where that is not the step's. Raises SourceError when that does not end.
        """
        recipe, position, bucket = self.recipe, step.first + slot, step.bucket
        index, skipped = self.index(position if own is None else own, bucket), []
        key = (bucket,) if bucket else ()
        for attempt in range(TRIES):
            rng = numpy_generator(recipe.seed, SAMPLE, self.kind, position, attempt, *key)
            try:
                sample = self.read(index, step.frames, step.strides, rng, recipe.data.flip)
            except BrokenSample as error:
                skipped.append(str(error))
                index = self._spare(numpy_generator(recipe.seed, SPARE, self.kind, position, attempt, *key), bucket)
                continue
            if self.medium == "images":
                low, high = recipe.diffusion.image_fps
                sample.fps = int(rng.integers(low, high + 1))
            if rng.random() < recipe.data.caption_dropout:
                sample.caption, sample.text = "", self.source.empty_text
            return replace(sample, skipped=skipped)
        raise SourceError(f"{self.name}: {TRIES} samples in a row could not be used, the last: {skipped[-1]}")

    def held_out(self, count: int) -> list[Sample]:
        """Samples that are never trained on, read alike every time, by size; broken ones are left out."""
        frames, low, high = self.lengths[0]
        samples: list[Sample] = []
        for index in self.order.held_out.tolist():
            if len(samples) == count:
                break
            try:
                sample = self.read(index, frames, (low, high), numpy_generator(self.recipe.seed, VALIDATION, index))
            except BrokenSample:
                continue  # the run's tally is of what it trains on
            if self.medium == "images":
                sample.fps = sum(self.recipe.diffusion.image_fps) // 2
            samples.append(sample)
        return sorted(samples, key=by_size)
