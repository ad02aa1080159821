"""Several sources as one: which of them gives the sample of a position, and its how-manieth that is."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from pathlib import Path

import numpy as np

from ..recipe import Recipe
from ..rng import MIXTURE, numpy_generator
from ..sources.files import fingerprint
from ..sources.source import CONTENT, MEDIA, Sample
from .plan import Step
from .stream import Stream, by_size


class Mixing:
    """Positions shared out by weight: in every block of them each source has its share, in a drawn order.

    So what is read at a position follows from it alone, and in the long run shares are exact. A source of weight 0 is
    never read.
    """

    BLOCK = 64

    def __init__(self, weights: Sequence[float], seed: int, key: tuple[int, ...]):
        shares = [Fraction(weight / sum(weights)).limit_denominator(10**6) for weight in weights]
        total = sum(shares)
        # At least one position of each source is in a block.
        self.length = max(self.BLOCK, ceil(total / min(share for share in shares if share)))
        self.ends = [sum(shares[: n + 1], Fraction(0)) / total for n in range(len(shares))]
        self.seed, self.key = seed, key
        self._block, self._sources = -1, np.empty(0, np.int64)

    def _given(self, positions: int) -> np.ndarray:
        """How many of the first positions belong to each source, `[sources]`; `positions` is a multiple of a block."""
        return np.diff([0, *(int(positions * end) for end in self.ends)])

    def __getitem__(self, position: int) -> tuple[int, int]:
        """(source, position in that source's own run)."""
        block, place = divmod(position, self.length)
        before = self._given(block * self.length)
        if block != self._block:
            counts = self._given((block + 1) * self.length) - before
            sources = np.repeat(np.arange(len(counts)), counts)
            self._sources = numpy_generator(self.seed, MIXTURE, block, *self.key).permutation(sources)
            self._block = block
        source = int(self._sources[place])
        return source, int(before[source] + np.count_nonzero(self._sources[:place] == source))


class MixedStream:
    """The samples of `data.clips` or `data.images` where they are a list of sources, mixed by weight."""

    def __init__(self, recipe: Recipe, medium: str, cache: Path, networks: dict[str, str] | None = None):
        members = recipe.data.sources[medium].members
        self.streams = [Stream(recipe, medium, cache, networks, number) for number in range(len(members))]
        self.content = f"{CONTENT}{fingerprint([stream.content for stream in self.streams])}"
        # A bucket of a source has its share of the source's weight.
        self.weights = [
            [member.weight * share for share in stream.shares()]
            for member, stream in zip(members, self.streams, strict=True)
        ]
        kind = MEDIA.index(medium)
        self.mixing = [
            Mixing(weights, recipe.seed, (kind, bucket)) if any(weights) else None
            for bucket, weights in enumerate(zip(*self.weights, strict=True))
        ]

    def files(self) -> str:
        """Nothing: 0.2.0 had no lists."""
        return ""

    def shares(self) -> list[float]:
        """The share of each bucket in its samples."""
        sums = [sum(weights) for weights in zip(*self.weights, strict=True)]
        return [share / sum(sums) for share in sums]

    def draw(self, step: Step, slot: int) -> Sample:
        """As a stream's."""
        mixing = self.mixing[step.bucket]
        assert mixing  # no step has a bucket without a sample
        source, own = mixing[step.first + slot]
        return self.streams[source].draw(step, slot, own)

    def held_out(self, count: int) -> list[Sample]:
        """`count` of each source that are never trained on, those of one size together."""
        samples = [sample for stream in self.streams for sample in stream.held_out(count)]
        return sorted(samples, key=by_size)


def stream_of(recipe: Recipe, medium: str, cache: Path, networks: dict[str, str] | None = None) -> Stream | MixedStream:
    """The samples of `data.clips` or `data.images`. Arguments as of `Stream`."""
    several = len(recipe.data.sources[medium].members) > 1
    return (MixedStream if several else Stream)(recipe, medium, cache, networks)
