"""What each step reads: the same on every process, by arithmetic alone."""

from __future__ import annotations

from dataclasses import dataclass

from ..recipe import Recipe
from ..rng import PLAN, numpy_generator
from ..sources.source import MEDIA


@dataclass(frozen=True)
class Step:
    """What a step reads: `count` samples from position `first` on of the run of its bucket of its medium's stream."""

    index: int
    medium: str
    frames: int
    strides: tuple[int, int]
    first: int
    count: int
    bucket: int = 0  # of `data.image_sizes`


class Plan:
    """Every step's kind: clips or images, how long, of which size, and where in the stream. `shares`: of the samples of
    a medium, the share of each bucket; one where it is not given.
    """

    CHUNK = 4096

    def __init__(self, recipe: Recipe, shares: dict[str, list[float]] | None = None):
        self.recipe = recipe
        self.chunks: list[list[Step]] = []
        self.shares = {medium: [1.0] for medium in MEDIA} | (shares or {})
        # After the last chunk: where each bucket's run is, and how many samples it is owed.
        self.positions = {medium: [0] * len(buckets) for medium, buckets in self.shares.items()}
        self.owed = {medium: [0.0] * len(buckets) for medium, buckets in self.shares.items()}

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
                step = self._next(index, "images", 1, (1, 1), count)
            else:
                step = self._next(index, "clips", frames, (low, high), recipe.batch)
            steps.append(step)
        return steps

    def _next(self, index: int, medium: str, frames: int, strides: tuple[int, int], count: int) -> Step:
        """The step of the bucket that is owed most: so every bucket has its share, to within a batch."""
        positions, owed = self.positions[medium], self.owed[medium]
        for bucket, share in enumerate(self.shares[medium]):
            owed[bucket] += share * count
        bucket = owed.index(max(owed))
        step = Step(index, medium, frames, strides, positions[bucket], count, bucket)
        owed[bucket] -= count
        positions[bucket] += count
        return step
