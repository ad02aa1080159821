"""Where a wire would pass under a node: points that lead it around."""

from __future__ import annotations

import math
from typing import NamedTuple

Point = tuple[float, float]

MARGIN = 6  # between a wire and a node, in pixels
SPACING = 12  # between two wires that run along one another
TURN = 18  # from a slot to where its wire turns
FAR = 100  # a wire that falls or climbs this much is held upright on the way


class Box(NamedTuple):
    """A node with its title, in pixels of the canvas."""

    left: float
    top: float
    right: float
    bottom: float

    def holds(self, x: float, y: float) -> bool:
        return self.left < x < self.right and self.top < y < self.bottom


def curve(start: Point, end: Point, samples: int = 40) -> list[Point]:
    """The browser's spline between two slots: it leaves to the right and arrives from the left."""
    reach = math.dist(start, end) / 4
    xs = (start[0], start[0] + reach, end[0] - reach, end[0])
    ys = (start[1], start[1], end[1], end[1])

    def bezier(p: tuple[float, ...], t: float) -> float:
        s = 1 - t
        return s**3 * p[0] + 3 * s * s * t * p[1] + 3 * s * t * t * p[2] + t**3 * p[3]

    return [(bezier(xs, i / samples), bezier(ys, i / samples)) for i in range(samples + 1)]


def crosses(path: list[Point], boxes: list[Box]) -> bool:
    """Whether a path passes under a box; its two ends may touch one, as slots do."""
    inner = [(x, y) for x, y in path if math.dist((x, y), path[0]) > MARGIN < math.dist((x, y), path[-1])]
    return any(box.holds(x, y) for x, y in inner for box in boxes)


class Router:
    """Finds each wire's way among the nodes, and beside the wires before it."""

    def __init__(self, boxes: list[Box], captions: list[Box]) -> None:
        self.boxes = boxes
        self.captions = captions  # no wire is led through them, though one that needs no leading may cross them
        self.lanes: list[tuple[float, float, float]] = []  # left, right, y
        self.turns = 0

    def route(self, start: Point, end: Point) -> list[Point]:
        """Points to pass on the way; none where the plain curve is free.

        The way leaves in the gap right of the start and arrives in the gap left of the end. Where that is not the same
        gap, it crosses over on a free height as near as can be. Raises ValueError where no height is free.
        """
        if not crosses(curve(start, end), self.boxes):
            return []
        self.turns += 1
        shift = SPACING / 2 * (self.turns % 3 - 1)
        out, back = start[0] + TURN + shift, end[0] - TURN + shift
        if 0 < end[0] - start[0] < 3 * TURN:
            drop = math.copysign(TURN, end[1] - start[1])
            return [(out, start[1] + drop), (out, end[1] - drop)]
        height = self._height(min(out, back), max(out, back), start[1], end[1])
        way: list[Point] = [(out, height), (back, height)]
        if abs(height - start[1]) > FAR:
            way.insert(0, (out, start[1] + math.copysign(TURN, height - start[1])))
        if abs(height - end[1]) > FAR:
            way.append((back, end[1] + math.copysign(TURN, height - end[1])))
        return way

    def _height(self, left: float, right: float, start: float, end: float) -> int:
        top, bottom = min(b.top for b in self.boxes), max(b.bottom for b in self.boxes)
        heights = [y for y in range(int(top) - 60, int(bottom) + 60, 2) if self._free(left, right, y)]
        if not heights:
            raise ValueError(f"no free height for a wire from x = {left:g} to {right:g}; move the nodes apart")
        height = min(heights, key=lambda y: (abs(y - start) + abs(y - end), abs(y - start)))
        self.lanes.append((left, right, height))
        return height

    def _free(self, left: float, right: float, y: float) -> bool:
        blocked = any(
            b.left < right and left < b.right and b.top - MARGIN < y < b.bottom + MARGIN
            for b in self.boxes + self.captions
        )
        beside = any(a < right and left < b and abs(y - lane) < SPACING for a, b, lane in self.lanes)
        return not blocked and not beside
