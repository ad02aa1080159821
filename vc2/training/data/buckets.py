"""Images of many shapes: each belongs to the size whose aspect is nearest to its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .order import Order, order_of


def nearest(sizes: np.ndarray, buckets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Which of `buckets` ((width, height) each) every one of `sizes` (`[N, 2]`) belongs to, `[N]`. One that is not
    known, 0 by 0, belongs to the first.
    """
    if len(buckets) == 1:
        return np.zeros(len(sizes), np.uint8)
    known = (sizes > 0).all(1, keepdims=True)
    width, height = np.where(known, sizes, buckets[0]).T.astype(np.float64)
    aspects = np.log([w / h for w, h in buckets])
    return np.abs(np.log(width / height)[:, None] - aspects).argmin(1).astype(np.uint8)


class Buckets:
    """The samples of a source by bucket, and an order of each bucket, those held out for validation aside."""

    def __init__(self, bucket: np.ndarray, count: int, held_out: np.ndarray, seed: int, version: int | None, key: int):
        self.bucket = bucket  # of each sample
        training = np.ones(len(bucket), bool)
        training[held_out] = False
        self.members = [np.flatnonzero(training & (bucket == n)) for n in range(count)]
        self.orders: list[Order] = [
            order_of(len(members), 0, seed, None, version, (key, n + 1)) for n, members in enumerate(self.members)
        ]

    def counts(self) -> list[int]:
        return [len(members) for members in self.members]

    def at(self, bucket: int, position: int) -> int:
        """The sample that is read at a position of a bucket's run."""
        return int(self.members[bucket][self.orders[bucket][position]])
