"""What is to be measured, how often, and what of it fits into the time left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet

from prism.errors import InputError
from prism.plan import Plan
from prism.profiler.budget import Budget
from prism.profiler.forecast import Forecast
from prism.profiler.partial import PartialProfile
from prism.profiler.points import (
    HELD_OUT_RUNS,
    LEAST_RUNS,
    Point,
    Settings,
    held_out_points,
    plans_alone,
    plans_alone_at,
    plans_together,
    plans_together_at,
    points_for,
    runs_per_point,
    thinned,
)
from prism.profiler.selection import Unit, affordable, batches_for, units
from prism.profiler.target import ProfileTarget

# Parts of a budget: for the nodes alone, if they are run more often than they must be; for the
# points held out.
_PART_ALONE = 0.15
_PART_HELD_OUT = 0.2


class Schedule:
    """Owns the points of one profile.

    Args:
        settings: how far to go.
        target: the model on the cluster.
        partial: what is measured already.
        forecast: what the rest will take.
        budget: what there is for it.

    Attributes:
        alone: the plans of one node each.
        batches: batch sizes, named or chosen.
        points: everything worth measuring, in groups of about the same size.
        held_out: points to test the predictions, after all others.

    Raises:
        InputError: the model has no samples of the lengths asked for.
    """

    def __init__(
        self,
        settings: Settings,
        target: ProfileTarget,
        partial: PartialProfile,
        forecast: Forecast,
        budget: Budget,
    ) -> None:
        self._settings, self._target = settings, target
        self._partial, self._forecast, self._budget = partial, forecast, budget
        self._lengths = _lengths(settings, target)
        self._precisions = tuple(
            each for each in target.precisions if each in (settings.precisions or target.precisions)
        )
        self.alone = plans_alone([node.name for node in target.identity.nodes])
        # How many points there are does not depend on who is how fast, which is measured first.
        self.choose([1.0] * len(self.alone))

    def choose(self, alone_s: Sequence[float]) -> None:
        """Choose the points: the first choice of batch sizes that the budget pays for, or the last.

        Args:
            alone_s: what the same work takes on each node alone.
        """
        target, settings = self._target, self._settings
        together = plans_together(target.model, settings.segments, alone_s)
        plans = (*self.alone, *plans_alone_at(target.identity.nodes, self._precisions), *together)
        few = plans_together_at(together, self._precisions)
        for batches in self._choices():
            groups = thinned(points_for(plans, batches, self._lengths, few), settings)
            self.batches = batches
            self._groups = _small_first(groups)
            self.points = [point for group in self._groups for point in group]
            self.held_out = held_out_points(settings, (*plans, *few), batches, self._lengths)
            self._most_runs = runs_per_point(settings, len(self.points))
            self._reserve()
            if len(self._affordable()) == len(self.points):
                break

    def smallest(self) -> Point:
        """Return the point without which there is no map."""
        alone = [point for point in self.points if point.plan == Plan()]
        return min(alone, key=lambda point: point[1:])

    def work_alone(self) -> tuple[Unit, int]:
        """Return what every node does alone, the longest that there is time for, and how often."""
        self._budget.reserved_s = 0.0
        least = min(self.batches)
        for length in sorted(self._lengths, reverse=True):
            alone = points_for(self.alone, (least,), (length,))[0]
            pass_s = sum(map(self._forecast.pass_s, alone))
            if (1 + LEAST_RUNS) * pass_s <= self._budget.left_s:
                break
        runs = self._most_runs
        while runs > LEAST_RUNS and (1 + runs) * pass_s > _PART_ALONE * self._budget.limit_s:
            runs -= 1
        return alone, runs

    def next_group(self, given_up: AbstractSet[Point]) -> tuple[Unit, int, Mapping[Point, int]]:
        """Return what to measure now, how often, and the passes of all that is to be measured.

        Args:
            given_up: points for which there was no time after all.

        Returns:
            The chosen points of the first group that has any to measure, empty if none has; the
            runs of each; by point, the passes in all.
        """
        self._reserve()
        chosen = self._affordable()
        runs = self._most_runs
        while runs > LEAST_RUNS and not self._fit(chosen, runs):
            runs -= 1
        wanted = self.wanted(chosen, runs)
        for group in self._groups:
            found = tuple(point for point in group if point in chosen and point not in given_up)
            if any(self.missing(point, runs) for point in found):
                return found, runs, wanted
        return (), runs, wanted

    def wanted(self, points: Collection[Point], runs: int | None = None) -> dict[Point, int]:
        """Return the passes of `points` and of those held out, warming up included.

        Args:
            points: measured `runs` times each.
            runs: None = as often as the settings allow.
        """
        passes = 1 + (runs or self._most_runs)
        return dict.fromkeys(points, passes) | dict.fromkeys(self.held_out, 1 + HELD_OUT_RUNS)

    def choose_held_out(self, predictable: Collection[Point]) -> Unit:
        """Return the points held out that there is time for, now that nothing else follows."""
        self._budget.reserved_s = 0.0
        alone = ((point,) for point in predictable)
        return tuple(affordable(alone, self._held_out_cost_s, self._budget.left_s))

    def enough(self, runs: int) -> int:
        """Return how many records make a point measured; under a budget it is not run again."""
        return min(runs, LEAST_RUNS) if self._budget.limited else runs

    def missing(self, point: Point, runs: int) -> int:
        """Return how many passes a point still needs, one to warm up included."""
        noted = len(self._partial.records(point))
        return 0 if noted >= self.enough(runs) else 1 + runs - noted

    def cost_s(self, point: Point, runs: int = LEAST_RUNS) -> float:
        """Return how long the missing passes of a point will take."""
        return self.missing(point, runs) * self._forecast.pass_s(point)

    def _choices(self) -> tuple[tuple[int, ...], ...]:
        """Return the batch sizes to choose from."""
        if self._settings.batches is not None:
            return (self._settings.batches,)
        if self._partial.batches and self._partial.batches[0] == self._settings.budget_s:
            return (self._partial.batches[1],)
        longest = max(self._lengths)
        return batches_for(lambda batch: self._target.payload.outputs(batch, longest))

    def _reserve(self) -> None:
        """Keep back what the points held out need, up to their part of the budget."""
        needed_s = sum(map(self._held_out_cost_s, self.held_out))
        self._budget.reserved_s = min(needed_s, _PART_HELD_OUT * self._budget.limit_s)

    def _affordable(self) -> dict[Point, float]:
        begun = {point.plan for point in self.points if self._partial.records(point)}
        return affordable(units(self.points, begun), self.cost_s, self._budget.left_s)

    def _fit(self, points: Collection[Point], runs: int) -> bool:
        return sum(self.cost_s(point, runs) for point in points) <= self._budget.left_s

    def _held_out_cost_s(self, point: Point) -> float:
        return self.cost_s(point, HELD_OUT_RUNS)


def _lengths(settings: Settings, target: ProfileTarget) -> tuple[int, ...]:
    """Return the lengths to measure.

    Raises:
        InputError: the model has no samples so long.
    """
    if settings.lengths is None:
        return target.lengths
    for length in settings.lengths:
        if length > target.model.max_length:
            raise InputError(
                f"length {length} is too long for this model, which takes up to "
                f"{target.model.max_length} positions"
            )
        if not target.any_length and length not in target.lengths:
            raise InputError(
                f"length {length} is not possible: every sample of this model has "
                f"{target.lengths[0]} positions; leave the length out"
            )
    return tuple(sorted(settings.lengths))


def _small_first(groups: Sequence[Unit]) -> list[Unit]:
    """Return the groups in order of their work, so that small ones tell what large ones take."""
    filled = [group for group in groups if group]
    return sorted(filled, key=lambda group: max(point.batch * point.length for point in group))
