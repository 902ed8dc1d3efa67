"""Which points a budget pays for: the most telling first, others as far as time is left.

A plan measured at one size only says little of other sizes, so its smallest and largest sizes, its
corners, are taken together. First `local` at those sizes, with which all else is compared; then
plan after plan, those at other precisions than float32 for what the rest is derived from; then the
sizes between. What fits nowhere is left out, and predicted from the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

from prism.plan import Plan
from prism.profiler.points import Point, is_corner

# Batch sizes where nobody names any: the first that fit. Slow models get smaller ones, and rather
# two that lie far apart than three: larger batches are predicted from the slope. Between the sizes
# there is always one left to test the prediction.
BATCHES = ((1, 4, 16), (1, 4, 8), (1, 6), (1, 3))
# More bytes of outputs in one batch are refused by small devices.
_MOST_OUTPUT_BYTES = 512 * 2**20

Unit = tuple[Point, ...]


def batches_for(output_bytes: Callable[[int], float]) -> tuple[tuple[int, ...], ...]:
    """Return the choices of batch sizes whose outputs are small enough; the last one always is.

    Args:
        output_bytes: of a batch of so many of the longest samples.
    """
    fitting = [batches for batches in BATCHES if output_bytes(batches[-1]) <= _MOST_OUTPUT_BYTES]
    return tuple(fitting) or BATCHES[-1:]


def units(points: Sequence[Point], begun: Collection[Plan] = ()) -> list[Unit]:
    """Return what is measured together or not at all, the most telling first.

    Args:
        points: all there are.
        begun: plans that have been measured somewhere. After `local` they come first, with their
            smallest batch: measured at the shortest length only, they would mislead at all others.

    Where a plan's corners are too much, its smallest batch is taken, at the shortest and longest
    length. Then come the sizes between, all of a length together: a plan's cost at one length is
    nothing to lead on from without a second batch. A point may appear in several units.
    """
    by_plan: dict[Plan, list[Point]] = {}
    for point in points:
        by_plan.setdefault(point.plan, []).append(point)
    most = max((plan.means or 0 for plan in by_plan), default=0)
    ordered = sorted(by_plan, key=lambda plan: _rank(plan, most))
    corners = {
        plan: tuple(each for each in by_plan[plan] if is_corner(each, by_plan[plan]))
        for plan in ordered
    }
    found: list[Unit] = [(point,) for point in corners.get(Plan(), ())]
    found.extend(_of_smallest_batch(corners[plan]) for plan in ordered if plan in begun)
    found.extend(corners.values())
    found.extend(_of_smallest_batch(corners[plan]) for plan in ordered)
    for plan in ordered:
        found.extend(_by_length(by_plan[plan]))
    return found


def _of_smallest_batch(points: Sequence[Point]) -> Unit:
    least = min(point.batch for point in points)
    return tuple(point for point in points if point.batch == least)


def _by_length(points: Sequence[Point]) -> list[Unit]:
    lengths = dict.fromkeys(point.length for point in points)
    return [tuple(point for point in points if point.length == length) for length in lengths]


def affordable(
    units: Iterable[Unit], cost_s: Callable[[Point], float], left_s: float
) -> dict[Point, float]:
    """Return the points that fit into the time left, with what each costs, in order of choice.

    Args:
        units: the most telling first; one that is too dear is passed over.
        cost_s: of measuring a point; 0 for one that is measured already.
        left_s: for all of them.
    """
    chosen: dict[Point, float] = {}
    for unit in units:
        costs_s = {point: cost_s(point) for point in unit if point not in chosen}
        total_s = sum(costs_s.values())
        if total_s <= max(0.0, left_s):
            chosen |= costs_s
            left_s -= total_s
    return chosen


def _rank(plan: Plan, most: int) -> tuple[int, int]:
    """Return how early a plan comes: by kind, then by number of nodes.

    What a precision gains on one node comes right after `local`, since all else at that precision
    derives from it.

    Args:
        plan: to rank.
        most: the largest number of means of any plan, which loses least.
    """
    in_float32 = plan.precision == "float32"
    if plan.size == 1 and not plan.nodes:
        kind = 0 if in_float32 else 1
    elif not plan.exchanges:
        kind = 5 if plan.size > 1 else 4
    elif not in_float32:
        kind = 6
    elif plan.means is None:
        kind = 3 if plan.wire == "float32" else 2
    elif plan.grouping == "segments":
        kind = 9
    else:
        kind = 2 if (plan.means, plan.lag) == (most, 0) else 7 if plan.means == most else 8
    return kind, plan.size
