"""A cost between and beyond its measured points, never falling as batch or length grow.

A planner compares predictions, so noise that makes a bigger batch look cheaper turns into a wrong
choice. A surface therefore corrects its points first: each becomes the middle between the largest
value at or below it (in both directions) and the smallest at or above. Points that already rise
stay exactly as measured. Between points it is linear; above the last it continues the last slope;
below the first it holds the first value, since fixed costs do not shrink.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import le

Grid = list[list[float]]


class Surface:
    """Non-decreasing interpolation of values measured at (batch, length) points."""

    __slots__ = ("_batches", "_columns", "_lengths")

    def __init__(self, points: Mapping[tuple[int, int], float]) -> None:
        """Take at least one point with values of 0 or more; gaps in the grid are filled."""
        assert points, "a surface needs a point"
        self._batches = sorted({batch for batch, _ in points})
        self._lengths = sorted({length for _, length in points})
        if len(points) == len(self._batches) * len(self._lengths):
            columns = [[points[b, length] for b in self._batches] for length in self._lengths]
        else:
            columns = [self._fill(points, length) for length in self._lengths]
        self._columns = _rising(columns)

    def _fill(self, points: Mapping[tuple[int, int], float], length: int) -> list[float]:
        """Return the values at one length for every batch size of the grid."""
        batches = [batch for batch in self._batches if (batch, length) in points]
        values = _rising([[points[batch, length] for batch in batches]])[0]
        return [_along(batches, values, batch) for batch in self._batches]

    def extrapolates(self, batch: int, length: int) -> bool:
        """Whether (batch, length) lies outside the measured range."""
        return not (
            self._batches[0] <= batch <= self._batches[-1]
            and self._lengths[0] <= length <= self._lengths[-1]
        )

    def at(self, batch: int, length: int) -> float:
        """Return the value at (batch, length)."""
        last = self._lengths[-1]
        if length <= last and batch <= self._batches[-1]:
            return self._inside(batch, length)
        values = self._at_batch(batch)
        if length <= last:
            return _along(self._lengths, values, length)
        # The steepest slope up to this batch: it alone keeps the far corner rising in batch too.
        slopes = [self._tail_slope(self._at_batch(b)) for b in self._batches if b < batch]
        return values[-1] + (length - last) * max([self._tail_slope(values), *slopes])

    def _inside(self, batch: int, length: int) -> float:
        """Return the value within the measured range, from the two nearest lengths alone."""
        right = min(bisect_right(self._lengths, length), len(self._lengths) - 1)
        near = slice(max(0, right - 1), right + 1)
        values = [_along(self._batches, column, batch) for column in self._columns[near]]
        return _along(self._lengths[near], values, length)

    def _at_batch(self, batch: int) -> list[float]:
        values = [_along(self._batches, column, batch) for column in self._columns]
        return values if batch <= self._batches[-1] else _rising([values])[0]

    def _tail_slope(self, values: Sequence[float]) -> float:
        return _tail_slope(self._lengths, values)


def _along(knots: Sequence[int], values: Sequence[float], x: int) -> float:
    if x <= knots[0]:
        return values[0]
    if x >= knots[-1]:
        return values[-1] + (x - knots[-1]) * _tail_slope(knots, values)
    right = bisect_right(knots, x)
    part = (x - knots[right - 1]) / (knots[right] - knots[right - 1])
    return values[right - 1] * (1 - part) + values[right] * part


def _tail_slope(knots: Sequence[int], values: Sequence[float]) -> float:
    """Return the last slope, or that from the origin where there is one point only."""
    if len(knots) == 1:
        return values[0] / knots[0]
    return (values[-1] - values[-2]) / (knots[-1] - knots[-2])


def _rising(grid: Grid) -> Grid:
    """Return the grid with each value between its largest predecessor and smallest successor."""
    if _rises(grid):
        return grid
    low = _running_max(grid)
    reverse = [[-value for value in reversed(row)] for row in reversed(grid)]
    high = [[-value for value in reversed(row)] for row in reversed(_running_max(reverse))]
    return [
        [(below + above) / 2 for below, above in zip(*rows, strict=True)]
        for rows in zip(low, high, strict=True)
    ]


def _rises(grid: Grid) -> bool:
    in_rows = all(row == sorted(row) for row in grid)
    return in_rows and all(all(map(le, row, below)) for row, below in pairwise(grid))


def _running_max(grid: Grid) -> Grid:
    result: Grid = []
    for row in grid:
        out: list[float] = []
        for index, value in enumerate(row):
            largest = value if not out else max(value, out[-1])
            out.append(max(largest, result[-1][index]) if result else largest)
        result.append(out)
    return result
