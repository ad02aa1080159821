"""One medium's samples as a run reads them: how each is cut is drawn, and others stand in for broken ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from ..recipe import Recipe
from ..rng import SAMPLE, SPARE, VALIDATION, numpy_generator
from ..sources.source import MEDIA, BrokenSample, Sample, SourceError, View
from .plan import Order, Step
from .prepared import Prepared

TRIES = 20  # samples to read in place of a broken one before giving up


class Stream:
    """The samples of `data.clips` or `data.images`. With fingerprints of the networks, what is prepared of them is
    read; without, the source itself.
    """

    def __init__(self, recipe: Recipe, medium: str, cache: Path, networks: dict[str, str] | None = None):
        self.recipe, self.medium, self.kind = recipe, medium, MEDIA.index(medium)
        self.section = recipe.data.sources[medium]
        self.source = self.section.open(medium, cache / "index")
        if self.section.prepared != "no" and networks is not None:
            self.source = Prepared.find(recipe, medium, self.source.identity(), cache, networks)
        self.order = Order(len(self.source), recipe.data.held_out, recipe.seed, self.source.blocks)
        if not len(self.order):
            raise SourceError(f"data.{medium}: the source is empty")
        # As `data.lengths`; images are clips of one frame.
        self.lengths = recipe.data.lengths if medium == "clips" else ((1, 1, 1),)

    def read(self, index: int, frames: int | None, strides: tuple[int, int], rng: np.random.Generator) -> Sample:
        """The sample of an index, its stride, start and crop drawn from `rng`, at a whole number of frames a second.
        Raises BrokenSample.
        """
        data, uniform, place = self.recipe.data, (rng.random(), rng.random()), (rng.random(), rng.random())
        place = place if data.crop == "random" else (0.5, 0.5)
        try:
            sample = self.source.read(index, View(frames, strides, uniform, data.width, data.height, place))
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

    def draw(self, step: Step, slot: int) -> Sample:
        """The sample of a slot; another in place of one that is broken, with why. Raises SourceError when that does not
        end.
        """
        recipe, position = self.recipe, step.first + slot
        index, skipped = self.order[position], []
        for attempt in range(TRIES):
            rng = numpy_generator(recipe.seed, SAMPLE, self.kind, position, attempt)
            try:
                sample = self.read(index, step.frames, step.strides, rng)
            except BrokenSample as error:
                skipped.append(str(error))
                spare = numpy_generator(recipe.seed, SPARE, self.kind, position, attempt)
                index = int(self.order.training[spare.integers(len(self.order))])
                continue
            if self.medium == "images":
                low, high = recipe.diffusion.image_fps
                sample.fps = int(rng.integers(low, high + 1))
            if rng.random() < recipe.data.caption_dropout:
                sample.caption, sample.text = "", self.source.empty_text
            return replace(sample, skipped=skipped)
        raise SourceError(f"data.{self.medium}: {TRIES} samples in a row could not be used, the last: {skipped[-1]}")

    def held_out(self, count: int) -> list[Sample]:
        """Samples that are never trained on, read alike every time; broken ones are left out."""
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
        return samples
