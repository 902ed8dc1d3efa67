"""Run the sweep and make the map.

Plans of the same size take turns, so that whatever else a device does hits all of them alike. At
the end, points nobody measured are predicted and then measured, and the error goes into the map.

    time the link
    run every node alone                          # how fast each is; sizes and shares follow
    while anything that is missing fits:
        choose what fits into the time left       # the most telling first, by the forecast
        measure what of it is smallest, in turns
    predict, then measure, the points held out
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
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
from prism.profiler.points import HELD_OUT_RUNS, Point, Settings
from prism.profiler.result import map_of, predictable, with_predictions
from prism.profiler.schedule import Schedule
from prism.profiler.target import ProfileTarget

_LINK_SIZES = (1_000, 16_000, 64_000, 128_000)
_LINK_REPEATS = 7
# A busy device makes the link look like another one, but not every time.
_LOOKS_AT_LINK = 3
# A node of the same kind is slower if even its best run takes so many times as long as usual runs
# of another; what is less may be chance.
_HELD_BACK = 1.5
# The first pass may find everything cold, the second does not.
_LOOKS_AT_MODEL = 2
# A budget that is proposed is longer than what was needed by this factor.
_ROOM = 1.25


class Profiler:
    """Measures one model on one cluster. The budget counts from the moment this is made.

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
        self._budget = Budget(settings.budget_s, clock)
        self._partial = PartialProfile(path, target.identity, settings)
        self._forecast = Forecast(target)
        self._schedule = Schedule(settings, target, self._partial, self._forecast, self._budget)
        self._runner = PassRunner(target, self._partial, self._forecast, self._budget, report)
        self._expect_all()

    def run(self) -> PerformanceMap:
        """Measure what is missing and write the map.

        Raises:
            InputError: the budget is too small for one point; says which would do.
            ClusterError: a node failed while measuring; what was measured is kept.
            MapError: the map cannot be written; an older one is unchanged.
        """
        alone = self._schedule.alone
        if len(alone) > 1:
            # Anew even when continuing: the network may be another one by now.
            self._measure_link()
        self._runner.begin()
        for point, record in self._partial:
            self._forecast.note(point, record.total_s)
        if self._budget.limited:
            self._look_at_model()
            self._schedule.choose([1.0] * len(alone))
            self._expect_all()
        self._runner.save()
        self._schedule.choose(self._measure_alone())
        self._partial.batches = self._settings.budget_s, self._schedule.batches
        self._measure_together()
        return self._finish()

    def _expect_all(self) -> None:
        self._runner.expect(self._schedule.wanted(self._schedule.points))

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
        """Run one sample, from which all forecasts begin, unless there are records already.

        Raises:
            InputError: the budget is too small for one point.
        """
        if any(self._partial):
            return
        smallest = self._schedule.smallest()
        for _ in range(_LOOKS_AT_MODEL):
            self._runner.run(smallest._replace(batch=1))
            if self._schedule.cost_s(smallest) <= self._budget.limit_s - self._budget.elapsed_s:
                return
        raise self._too_small()

    def _too_small(self) -> InputError:
        plan, batch, length = self._schedule.smallest()
        needed_s = self._budget.elapsed_s + self._schedule.cost_s(Point(plan, batch, length))
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
        alone, runs = self._schedule.work_alone()
        self._runner.measure(alone, runs, self._schedule.enough(runs))
        runs_s = [[run.compute_s for run in self._partial.records(point)] for point in alone]
        if len(alone) < 2 or not all(runs_s):
            return [1.0] * len(alone)
        # The least of some runs is what a node can do; the rest is what disturbed it.
        alone_s = [min(runs) for runs in runs_s]
        nodes = self._target.identity.nodes
        one_kind = len({node.kind for node in nodes}) == 1
        if one_kind and max(alone_s) < _HELD_BACK * min(map(median, runs_s)):
            return [1.0] * len(alone_s)
        return alone_s

    def _measure_together(self) -> None:
        """Measure what the budget pays for, and think again after every group.

        What turned out cheaper than forecast leaves time for points passed over before.
        """
        given_up: set[Point] = set()
        while True:
            group, runs, wanted = self._schedule.next_group(given_up)
            self._runner.expect(wanted)
            if not group:
                return
            self._runner.measure(group, runs, self._schedule.enough(runs))
            given_up |= {point for point in group if self._schedule.missing(point, runs)}

    def _finish(self) -> PerformanceMap:
        points = self._schedule.points
        if not any(self._partial.records(point) for point in points if point.plan == Plan()):
            raise self._too_small()
        perf = map_of(self._target, points, self._partial, self._settings, self._version)
        held_out = self._hold_out(perf)
        self._runner.save()
        perf = with_predictions(perf, points, held_out, self._partial, self._forecast)
        self._partial.finish(perf, self._path)
        return perf

    def _hold_out(self, perf: PerformanceMap) -> Mapping[Point, float]:
        """Predict points that were not measured, and measure them; return the predictions."""
        predicted = predictable(perf, self._schedule.held_out)
        chosen = self._schedule.choose_held_out(predicted)
        self._runner.expect(dict.fromkeys(chosen, 1 + HELD_OUT_RUNS))
        self._runner.measure(chosen, HELD_OUT_RUNS, self._schedule.enough(HELD_OUT_RUNS))
        return {point: predicted[point] for point in chosen}
