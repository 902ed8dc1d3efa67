"""Run the sweep and make the map.

Plans of the same size take turns, so that whatever else a device does hits all of them alike. At
the end, points nobody measured are predicted and then measured, and the error goes into the map.

    time the link
    run every node alone                          # how fast each is; sizes and shares follow
    for size in sizes, small ones first:
        choose what fits into the time left       # the most telling first, by the forecast
        measure what of it has this size, in turns
    predict, then measure, the points held out
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from statistics import median

from prism.errors import InputError
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.profiler.budget import Budget
from prism.profiler.forecast import Forecast
from prism.profiler.linkfit import fit_link
from prism.profiler.partial import PartialProfile
from prism.profiler.passes import PassRunner, Progress
from prism.profiler.points import (
    HELD_OUT_RUNS,
    LEAST_RUNS,
    Point,
    Settings,
    held_out_points,
    plans_alone,
    plans_together,
    points_for,
    runs_per_point,
    thinned,
)
from prism.profiler.result import map_of, predictable, with_predictions
from prism.profiler.selection import Unit, affordable, batches_for, units
from prism.profiler.target import ProfileTarget

_LINK_SIZES = (1_000, 16_000, 64_000, 128_000)
_LINK_REPEATS = 7
# A busy device makes the link look like another one, but not every time.
_LOOKS_AT_LINK = 3
# A node of the same kind is slower if even its best run takes so many times as long as usual runs
# of another; what is less may be chance.
_HELD_BACK = 1.5
# Parts of a budget: for the nodes alone, if they are run more often than they must be; for the
# points held out.
_PART_ALONE = 0.15
_PART_HELD_OUT = 0.2
# The first pass may find everything cold, the second does not.
_LOOKS_AT_MODEL = 2
# A budget that is proposed is longer than what was needed by this factor.
_ROOM = 1.25
_HELD_OUT_PASSES = 1 + HELD_OUT_RUNS


class Profiler:
    """Measures one model on one cluster.

    Args:
        target: the model on the cluster.
        settings: how far to go.
        path: where the map goes; what is measured is kept beside it until it is complete.
        report: told about progress, before every pass.
        prism_version: to be named in the map.
        clock: seconds on a monotonic clock, by which the budget is kept.

    Raises:
        InputError: the model has no samples of the lengths asked for.
        MapError: what an interrupted profile left cannot be read.
    """

    def __init__(
        self,
        target: ProfileTarget,
        settings: Settings,
        path: Path,
        report: Callable[[Progress], None],
        prism_version: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._settings = settings
        self._path = path
        self._version = prism_version
        self._alone = plans_alone([node.name for node in target.identity.nodes])
        self._lengths = _lengths(settings, target)
        self._partial = PartialProfile(path, target.identity, settings)
        self._budget = Budget(settings.budget_s, clock)
        self._forecast = Forecast(target)
        self._runner = PassRunner(target, self._partial, self._forecast, self._budget, report)
        # How many points there are does not depend on who is how fast, which is measured first.
        self._choose_points([1.0] * len(self._alone))

    def _choose_points(self, alone_s: Sequence[float]) -> None:
        """Take the first choice of batch sizes that the budget pays for, or the last."""
        target, settings = self._target, self._settings
        plans = (*self._alone, *plans_together(target.model, settings.segments, alone_s))
        for batches in self._batches():
            groups = thinned(points_for(plans, batches, self._lengths), settings)
            self._batches_chosen = batches
            self._groups = _small_first(groups)
            self._points = [point for group in self._groups for point in group]
            self._held_out = held_out_points(settings, plans, batches, self._lengths)
            self._most_runs = runs_per_point(settings, len(self._points))
            self._reserve()
            if len(self._affordable(LEAST_RUNS)) == len(self._points):
                break
        self._expect(self._points, self._most_runs)

    def _batches(self) -> tuple[tuple[int, ...], ...]:
        if self._settings.batches is not None:
            return (self._settings.batches,)
        if self._partial.batches and self._partial.batches[0] == self._settings.budget_s:
            return (self._partial.batches[1],)
        longest = max(self._lengths)
        return batches_for(lambda batch: self._target.payload.outputs(batch, longest))

    def run(self) -> PerformanceMap:
        """Measure what is missing and write the map.

        Raises:
            InputError: the budget is too small for one point; says which is not.
            ClusterError: a node failed while measuring; what was measured is kept.
            MapError: the map cannot be written; an older one is unchanged.
        """
        if len(self._alone) > 1:
            # Anew even when continuing: the network may be another one by now.
            self._measure_link()
        self._runner.begin()
        for point, record in self._partial:
            self._forecast.note(point, record.total_s)
        if self._budget.limited:
            self._look_at_model()
            self._choose_points([1.0] * len(self._alone))
        self._runner.save()
        self._choose_points(self._measure_alone())
        self._partial.batches = self._settings.budget_s, self._batches_chosen
        self._measure_together()
        if not any(self._partial.records(point) for point in self._points if point.plan == Plan()):
            raise self._too_small()
        perf = map_of(self._target, self._points, self._partial, self._settings, self._version)
        held_out = self._hold_out(perf)
        self._runner.save()
        perf = with_predictions(perf, self._points, held_out, self._partial)
        self._partial.finish(perf, self._path)
        return perf

    def _measure_link(self) -> None:
        """Take note of the link; what was measured over another one is forgotten.

        To measure again costs minutes, to look again at what seems another link costs seconds.
        """
        for _ in range(_LOOKS_AT_LINK):
            self._runner.tell("link")
            link = fit_link(self._target.link_times(_LINK_SIZES, _LINK_REPEATS))
            if self._partial.link is None or self._partial.is_over(link):
                break
        self._partial.over(link)
        self._forecast.link = self._partial.link

    def _look_at_model(self) -> None:
        """Run one sample, from which all forecasts begin.

        Raises:
            InputError: the budget is too small for one point.
        """
        if any(self._partial):
            return
        smallest = self._smallest()
        for _ in range(_LOOKS_AT_MODEL):
            self._runner.run(smallest._replace(batch=1))
            needed_s = self._budget.elapsed_s + self._cost_s(smallest, LEAST_RUNS)
            if needed_s <= self._budget.limit_s:
                return
        raise self._too_small()

    def _smallest(self) -> Point:
        """Return the point without which there is no map."""
        return min(
            (point for point in self._points if point.plan == Plan()), key=lambda each: each[1:]
        )

    def _too_small(self) -> InputError:
        plan, batch, length = self._smallest()
        needed_s = self._budget.elapsed_s + self._cost_s(self._smallest(), LEAST_RUNS)
        return InputError(
            f"a budget of {self._budget.limit_s:g} s is too small for one point: with the link, "
            f"{plan} at batch {batch} and length {length} takes about {needed_s:.1f} s; give it "
            f"{math.ceil(_ROOM * needed_s)} s or more"
        )

    def _measure_alone(self) -> list[float]:
        """Return how long the same work takes on each node, in the cluster's order.

        The longest input tells most: a node whose processor is rationed runs freely for a moment.
        Nodes of one kind count as equally fast unless one is clearly held back.
        """
        self._budget.reserved_s = 0.0
        alone, runs = self._work_alone()
        self._runner.measure(alone, runs, self._enough(runs))
        runs_s = [[run.compute_s for run in self._partial.records(point)] for point in alone]
        if len(self._alone) < 2 or not all(runs_s):
            return [1.0] * len(self._alone)
        # The least of some runs is what a node can do; the rest is what disturbed it.
        alone_s = [min(runs) for runs in runs_s]
        nodes = self._target.identity.nodes
        one_kind = len({(node.hardware, node.threads) for node in nodes}) == 1
        if one_kind and max(alone_s) < _HELD_BACK * min(map(median, runs_s)):
            return [1.0] * len(alone_s)
        return alone_s

    def _work_alone(self) -> tuple[Unit, int]:
        """Return what every node does alone, the longest that there is time for, and how often."""
        least = min(self._batches_chosen)
        for length in sorted(self._lengths, reverse=True):
            alone = points_for(self._alone, (least,), (length,))[0]
            pass_s = sum(map(self._forecast.pass_s, alone))
            if (1 + LEAST_RUNS) * pass_s <= self._budget.left_s:
                break
        runs = self._most_runs
        while runs > LEAST_RUNS and (1 + runs) * pass_s > _PART_ALONE * self._budget.limit_s:
            runs -= 1
        return alone, runs

    def _measure_together(self) -> None:
        """Measure what the budget pays for, and think again after every group.

        What turned out cheaper than forecast leaves time for points passed over before.
        """
        given_up: set[Point] = set()
        while True:
            self._reserve()
            chosen = self._affordable(LEAST_RUNS)
            runs = self._most_runs
            while runs > LEAST_RUNS and not self._affords(chosen, runs):
                runs -= 1
            self._expect(chosen, runs)
            group = self._next_group(chosen.keys() - given_up, runs)
            if not group:
                return
            self._runner.measure(group, runs, self._enough(runs))
            given_up |= {point for point in group if self._missing(point, runs)}

    def _next_group(self, chosen: AbstractSet[Point], runs: int) -> Unit:
        """Return the chosen points of the first group that has any to measure; none if none has."""
        for group in self._groups:
            found = tuple(point for point in group if point in chosen)
            if any(self._missing(point, runs) for point in found):
                return found
        return ()

    def _hold_out(self, perf: PerformanceMap) -> Mapping[Point, float]:
        """Predict points that were not measured, and measure them; return the predictions."""
        predicted = predictable(perf, self._held_out)
        self._budget.reserved_s = 0.0
        chosen = affordable(
            ((point,) for point in predicted), self._held_out_cost_s, self._budget.left_s
        )
        self._runner.expect(
            dict.fromkeys(self._points, 0) | dict.fromkeys(chosen, _HELD_OUT_PASSES)
        )
        self._runner.measure(tuple(chosen), HELD_OUT_RUNS, self._enough(HELD_OUT_RUNS))
        return {point: predicted[point] for point in chosen}

    def _reserve(self) -> None:
        """Keep back what the points held out need, up to their part of the budget."""
        needed_s = sum(map(self._held_out_cost_s, self._held_out))
        self._budget.reserved_s = min(needed_s, _PART_HELD_OUT * self._budget.limit_s)

    def _expect(self, points: Sequence[Point] | Mapping[Point, float], runs: int) -> None:
        wanted = dict.fromkeys(points, runs + 1) | dict.fromkeys(self._held_out, _HELD_OUT_PASSES)
        self._runner.expect(wanted)

    def _affordable(self, runs: int) -> dict[Point, float]:
        costs_s = {point: self._cost_s(point, runs) for point in self._points}
        return affordable(units(self._points), costs_s.__getitem__, self._budget.left_s)

    def _affords(self, points: Mapping[Point, float], runs: int) -> bool:
        return sum(self._cost_s(point, runs) for point in points) <= self._budget.left_s

    def _enough(self, runs: int) -> int:
        """Return how many records make a point measured; under a budget it is not run again."""
        return min(runs, LEAST_RUNS) if self._budget.limited else runs

    def _missing(self, point: Point, runs: int) -> int:
        """Return how many passes a point still needs, one to warm up included."""
        noted = len(self._partial.records(point))
        return 0 if noted >= self._enough(runs) else 1 + runs - noted

    def _cost_s(self, point: Point, runs: int) -> float:
        return self._missing(point, runs) * self._forecast.pass_s(point)

    def _held_out_cost_s(self, point: Point) -> float:
        return self._cost_s(point, HELD_OUT_RUNS)


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
