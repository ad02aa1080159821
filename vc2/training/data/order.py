"""In which order the samples of a source come, epoch after epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..rng import ORDER, numpy_generator

SHUFFLED_BLOCKS = 16  # tars whose samples are mixed with one another; a process has few files open at a time
LARGE = 2**22  # samples from which on an order is computed and not held in memory
FIRST, NEWEST = 1, 2  # of `data.order`: that of 0.2.0, which holds orders of any length in memory


class Order:
    """Epoch after epoch, a shuffled run over the indices of a source, those held out for validation aside.

    `blocks` are the lengths of the source's files: their order is shuffled, and the samples of a few with one another.
    `key` tells apart orders of the same seed. An epoch's order is held in memory, 8 bytes a sample.
    """

    def __init__(
        self, count: int, held_out: int, seed: int, blocks: Sequence[int] | None = None, key: tuple[int, ...] = ()
    ):
        held = min(held_out, count // 10)
        self.held_out = (
            np.unique(np.linspace(0, count - 1, held).round().astype(np.int64)) if held else np.empty(0, np.int64)
        )
        self.count, self.seed, self.key = count, seed, key
        # Where each file's samples end, in the run over those that are not held out.
        self.ends = None
        if blocks is not None:
            ends = np.cumsum(blocks)
            self.ends = ends - np.searchsorted(self.held_out, ends)
        self._gaps = self.held_out - np.arange(len(self.held_out))
        self._epoch = -1

    def __len__(self) -> int:
        return self.count - len(self.held_out)

    def training(self, place: int) -> int:
        """The index of the source that is the `place`-th of those not held out."""
        return int(place + np.searchsorted(self._gaps, place, side="right"))

    def __getitem__(self, position: int) -> int:
        """The index of the source that is read at a position, counted from the run's beginning."""
        epoch, place = divmod(position, len(self))
        if epoch != self._epoch:
            self._start(epoch)
            self._epoch = epoch
        return self._at(place)

    def _generator(self, epoch: int) -> np.random.Generator:
        return numpy_generator(self.seed, ORDER, epoch, *self.key)

    def _start(self, epoch: int) -> None:
        training, rng = np.delete(np.arange(self.count), self.held_out), self._generator(epoch)
        if self.ends is None:
            self._shuffled = rng.permutation(training)
            return
        blocks = np.split(training, self.ends[:-1])
        blocks = [blocks[i] for i in rng.permutation(len(blocks))]
        groups = [np.concatenate(blocks[i : i + SHUFFLED_BLOCKS]) for i in range(0, len(blocks), SHUFFLED_BLOCKS)]
        self._shuffled = np.concatenate([rng.permutation(group) for group in groups])

    def _at(self, place: int) -> int:
        return int(self._shuffled[place])


class ComputedOrder(Order):
    """The same, for sources of any size: what is read at a position is computed. Only the order of the files is held
    in memory, 24 bytes each.
    """

    def _start(self, epoch: int) -> None:
        rng = self._generator(epoch)
        ends = np.array([len(self)]) if self.ends is None else self.ends
        order = rng.permutation(len(ends))
        starts = np.concatenate([[0], ends[:-1]])
        self._starts, lengths = starts[order], (ends - starts)[order]
        self._ends = np.cumsum(lengths)  # of the files in this epoch's order
        self._groups = self._ends[SHUFFLED_BLOCKS - 1 :: SHUFFLED_BLOCKS]
        if not len(self._groups) or self._groups[-1] < len(self):
            self._groups = np.append(self._groups, len(self))
        self._keys = rng.integers(2**63, size=ROUNDS)

    def _at(self, place: int) -> int:
        group = int(np.searchsorted(self._groups, place, side="right"))
        first = int(self._groups[group - 1]) if group else 0
        keys = [mix(int(key) + group) for key in self._keys]
        place = first + permuted(place - first, int(self._groups[group]) - first, keys)
        file = int(np.searchsorted(self._ends, place, side="right"))
        return self.training(int(self._starts[file]) + place - (int(self._ends[file - 1]) if file else 0))


def order_of(
    count: int, held_out: int, seed: int, blocks: Sequence[int] | None, version: int | None, key: tuple[int, ...] = ()
) -> Order:
    """The order of a source of `count` samples in a run of this `data.order` (None: one that 0.2.0 began)."""
    computed = (version or FIRST) > FIRST and count >= LARGE
    return (ComputedOrder if computed else Order)(count, held_out, seed, blocks, key)


ROUNDS = 4


def permuted(place: int, count: int, keys: Sequence[int]) -> int:
    """Where a permutation of `count` numbers, chosen by ROUNDS keys, sends one of them.

    A Feistel network permutes the numbers of an even count of bits; what it sends beyond `count` is sent on until it is
    within (Black and Rogaway, "Ciphers with arbitrary finite domains", 2002).
    """
    half = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for key in keys:
            left, right = right, left ^ (mix(right + key) & mask)
        place = left << half | right
        if place < count:
            return place


def mix(value: int) -> int:
    """64 bits of which each hangs on every bit of `value` (the finaliser of splitmix64)."""
    value &= 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    value = (value ^ value >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return value ^ value >> 31
