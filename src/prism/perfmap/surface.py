"""A cost between and beyond its measured points, never falling as batch or length grow.

A planner compares predictions, so noise that makes a bigger batch look cheaper turns into a wrong
choice. A surface therefore corrects its points first: each becomes the middle between the largest
value at or below it (in both directions) and the smallest at or above. Points that already rise
stay exactly as measured. Between points it is linear; above the last it continues the last slope;
below the first it holds the first value, since fixed costs do not shrink.

Where a length lacks a batch size, other lengths tell how the value grows with the batch: what is
missing is to a value of its length as the same two are at the nearest lengths that have both, but
no more than in proportion to the batch: next to nothing grows by any factor. A length longer than
all that have both is continued by itself: its fixed costs weigh less, so that it grows more.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import le

Grid = list[list[float]]
Points = Mapping[tuple[int, int], float]


class Surface:
    """Non-decreasing interpolation of values measured at (batch, length) points."""

    __slots__ = ("_batches", "_columns", "_lengths")

    def __init__(self, points: Points) -> None:
        """Take at least one point with values of 0 or more; gaps in the grid are filled."""
        assert points, "a surface needs a point"
        self._batches = sorted({batch for batch, _ in points})
        self._lengths = sorted({length for _, length in points})
        points = _filled(points)
        self._columns = _rising([self._column(points, length) for length in self._lengths])

    def _column(self, points: Points, length: int) -> list[float]:
        """Return the values at one length for every batch size of the grid."""
        batches = [batch for batch in self._batches if (batch, length) in points]
        values = [points[batch, length] for batch in batches]
        if len(batches) == len(self._batches):
            return values
        values = _rising([values])[0]
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


def _filled(points: Points) -> Points:
    """Return the points and those that follow from how the value grows at other lengths."""
    batches, lengths = ({point[axis] for point in points} for axis in (0, 1))
    while missing := [(b, n) for b in batches for n in lengths if (b, n) not in points]:
        found = {
            (batch, length): value
            for batch, length in missing
            if (value := _as_elsewhere(points, batch, length)) is not None
        }
        if not found:
            break
        points = {**points, **found}
    return points


def _as_elsewhere(points: Points, batch: int, length: int) -> float | None:
    """Return the value at a point if it grows there with the batch as at the lengths nearby."""
    own = [other for other, here in points if here == length]
    guesses = {}
    for base in _around(own, batch):
        least, most = sorted((1.0, batch / base))
        growth = {
            there: min(most, max(least, points[batch, there] / points[base, there]))
            for other, there in points
            if other == batch and points.get((base, there))
        }
        if growth and length <= max(growth):
            near = _around(list(growth), length)
            guesses[base] = points[base, length] * _between(near, growth, length)
    return _between(list(guesses), guesses, batch) if guesses else None


def _around(knots: Sequence[int], x: int) -> list[int]:
    """Return the nearest knot below and the nearest above, as far as there are such."""
    below, above = [k for k in knots if k <= x], [k for k in knots if k > x]
    return [*([max(below)] if below else []), *([min(above)] if above else [])]


def _between(knots: Sequence[int], values: Mapping[int, float], x: int) -> float:
    """Return the value on the line between one or two knots; the value of one alone."""
    if len(knots) == 1:
        return values[knots[0]]
    part = (x - knots[0]) / (knots[1] - knots[0])
    return values[knots[0]] * (1 - part) + values[knots[1]] * part


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
