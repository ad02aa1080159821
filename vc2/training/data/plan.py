"""What each step reads, and in which order samples come: the same on every process, by arithmetic alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..recipe import Recipe
from ..rng import ORDER, PLAN, numpy_generator
from ..sources.source import MEDIA

SHUFFLED_BLOCKS = 16  # tars whose samples are mixed with one another; a process has few files open at a time


@dataclass(frozen=True)
class Step:
    """What a step reads: `count` samples of its medium's stream from position `first` on."""

    index: int
    medium: str
    frames: int
    strides: tuple[int, int]
    first: int
    count: int


class Plan:
    """Every step's kind: clips or images, how long, and where in the stream."""

    CHUNK = 4096

    def __init__(self, recipe: Recipe):
        self.recipe = recipe
        self.chunks: list[list[Step]] = []
        self.positions = dict.fromkeys(MEDIA, 0)  # of the streams, after the last chunk

    def __getitem__(self, step: int) -> Step:
        while len(self.chunks) * self.CHUNK <= step:
            self.chunks.append(self._chunk(len(self.chunks)))
        return self.chunks[step // self.CHUNK][step % self.CHUNK]

    def _chunk(self, number: int) -> list[Step]:
        recipe, rng, steps = self.recipe, numpy_generator(self.recipe.seed, PLAN, number), []
        for index in range(number * self.CHUNK, (number + 1) * self.CHUNK):
            frames, low, high = recipe.data.lengths[int(rng.integers(len(recipe.data.lengths)))]
            if rng.random() < recipe.image_share(frames):
                # As many images as the clips of a step would have frames, except where there are no clips.
                count = recipe.batch * (1 if recipe.image_only else frames)
                step = Step(index, "images", 1, (1, 1), self.positions["images"], count)
            else:
                step = Step(index, "clips", frames, (low, high), self.positions["clips"], recipe.batch)
            self.positions[step.medium] += step.count
            steps.append(step)
        return steps


class Order:
    """Epoch after epoch, a shuffled run over the indices of a source, those held out for validation aside.

    `blocks` are the lengths of the source's files: their order is shuffled, and the samples of a few with one another.
    """

    def __init__(self, count: int, held_out: int, seed: int, blocks: Sequence[int] | None = None):
        held = min(held_out, count // 10)
        self.held_out = (
            np.unique(np.linspace(0, count - 1, held).round().astype(np.int64)) if held else np.empty(0, np.int64)
        )
        self.training = np.setdiff1d(np.arange(count), self.held_out, assume_unique=True)
        self.seed = seed
        self.ends = np.searchsorted(self.training, np.cumsum(blocks)) if blocks is not None else None
        self._shuffled: tuple[int, np.ndarray] = (-1, self.training)

    def __len__(self) -> int:
        return len(self.training)

    def __getitem__(self, position: int) -> int:
        epoch, place = divmod(position, len(self.training))
        if epoch != self._shuffled[0]:
            self._shuffled = epoch, self._shuffle(epoch)
        return int(self._shuffled[1][place])

    def _shuffle(self, epoch: int) -> np.ndarray:
        rng = numpy_generator(self.seed, ORDER, epoch)
        if self.ends is None:
            return rng.permutation(self.training)
        blocks = np.split(self.training, self.ends[:-1])
        blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        groups = [np.concatenate(blocks[i : i + SHUFFLED_BLOCKS]) for i in range(0, len(blocks), SHUFFLED_BLOCKS)]
        return np.concatenate([rng.permutation(group) for group in groups])
