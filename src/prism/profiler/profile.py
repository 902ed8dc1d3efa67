"""Run the sweep and make the map.

Plans of the same size take turns, so that whatever else a device does hits all of them alike. At
the end, points nobody measured are predicted and then measured, and the error goes into the map.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from statistics import median

from prism.errors import PlanError
from prism.perfmap import HeldOut, MapLink, Measurement, PerformanceMap
from prism.planner import CostModel
from prism.profiler.linkfit import fit_link
from prism.profiler.partial import PartialProfile
from prism.profiler.points import (
    HELD_OUT_RUNS,
    Point,
    Settings,
    held_out_points,
    plans_alone,
    plans_together,
    points_for,
    runs_per_point,
    thinned,
)
from prism.profiler.target import ProfileTarget
from prism.profiler.turns import take_turns
from prism.record import RunRecord

_LINK_SIZES = (1_000, 16_000, 64_000, 128_000)
_LINK_REPEATS = 7
# A busy device makes the link look like another one, but not every time.
_LOOKS_AT_LINK = 3
# A node of the same kind is slower if even its best run takes so many times as long as usual runs
# of another; what is less may be chance.
_HELD_BACK = 1.5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a profile is.

    Attributes:
        done: forward passes run, those of an interrupted profile included.
        total: forward passes in all.
        left_s: estimated time left; None before the first pass.
        doing: what is measured now, in words.
    """

    done: int
    total: int
    left_s: float | None
    doing: str


class Profiler:
    """Measures one model on one cluster.

    Args:
        target: the model on the cluster.
        settings: how far to go.
        path: where the map goes; what is measured is kept beside it until it is complete.
        report: told about progress, before every pass.
        prism_version: to be named in the map.
    """

    def __init__(
        self,
        target: ProfileTarget,
        settings: Settings,
        path: Path,
        report: Callable[[Progress], None],
        prism_version: str,
    ) -> None:
        self._target = target
        self._settings = settings
        self._path = path
        self._report = report
        self._version = prism_version
        self._alone = plans_alone([node.name for node in target.identity.nodes])
        # How many points there are does not depend on who is how fast, which is measured first.
        self._choose_points([1.0] * len(self._alone))
        self._runs = runs_per_point(settings, len(self._points))
        self._done = Counter[Point]()
        self._spent_s = 0.0
        self._worked = 0

    def _choose_points(self, alone_s: Sequence[float]) -> None:
        target, settings = self._target, self._settings
        plans = (*self._alone, *plans_together(target.model, settings.segments, alone_s))
        self._groups = thinned(points_for(plans, settings.batches, target.lengths), settings)
        self._points = [point for group in self._groups for point in group]
        self._held_out = held_out_points(settings, plans, target.lengths)

    def run(self) -> PerformanceMap:
        """Measure what is missing and write the map.

        Raises:
            ClusterError: a node failed while measuring; what was measured is kept.
            MapError: the map cannot be written; an older one is unchanged.
        """
        partial = PartialProfile(self._path, self._target.identity, self._settings)
        started_s = time.monotonic()
        if len(self._target.identity.nodes) > 1:
            # Anew even when continuing: the network may be another one by now.
            self._measure_link(partial)
        before_s = partial.seconds_spent

        def save() -> None:
            partial.seconds_spent = before_s + time.monotonic() - started_s
            partial.save()

        save()
        if len(self._alone) > 1:
            self._choose_points(self._measure_alone(partial, save))
        for group in self._groups:
            self._measure(group, self._runs, partial, save)
        perf = self._map(partial)
        held_out = self._hold_out(perf, partial, save)
        save()
        perf = replace(
            perf,
            held_out=held_out,
            passes=partial.passes,
            seconds_spent=partial.seconds_spent,
        )
        partial.finish(perf, self._path)
        return perf

    def _measure_link(self, partial: PartialProfile) -> None:
        """Take note of the link; what was measured over another one is forgotten.

        To measure again costs minutes, to look again at what seems another link costs seconds.
        """
        for _ in range(_LOOKS_AT_LINK):
            self._tell("link")
            link = fit_link(self._target.link_times(_LINK_SIZES, _LINK_REPEATS))
            if partial.link is None or partial.is_over(link):
                break
        partial.over(link)

    def _measure_alone(self, partial: PartialProfile, save: Callable[[], None]) -> list[float]:
        """Return how long the same work takes on each node, in the cluster's order.

        The longest input tells most: a node whose processor is rationed runs freely for a moment.
        Nodes of one kind count as equally fast unless one is clearly held back.
        """
        work = (min(self._settings.batches),), (max(self._target.lengths),)
        alone = points_for(self._alone, *work)[0]
        self._measure(alone, self._runs, partial, save)
        runs_s = [[run.compute_s for run in partial.records(point)] for point in alone]
        # The least of some runs is what a node can do; the rest is what disturbed it.
        alone_s = [min(runs) for runs in runs_s]
        nodes = self._target.identity.nodes
        one_kind = len({(node.hardware, node.threads) for node in nodes}) == 1
        if one_kind and max(alone_s) < _HELD_BACK * min(map(median, runs_s)):
            return [1.0] * len(alone_s)
        return alone_s

    def _measure(
        self,
        group: tuple[Point, ...],
        runs: int,
        partial: PartialProfile,
        save: Callable[[], None],
    ) -> None:
        """Run every point of a group `runs` times, in turns, after one warm-up each."""
        missing = [point for point in group if len(partial.records(point)) < runs]
        for point in group:
            self._done[point] = len(partial.records(point)) + (point not in missing)
        for point in missing:
            self._run(point, partial)
        for turn in take_turns(missing, runs):
            for point in turn:
                if len(partial.records(point)) < runs:
                    partial.add(point, self._run(point, partial))
            save()

    def _run(self, point: Point, partial: PartialProfile) -> RunRecord:
        self._tell(f"{point.plan}, batch {point.batch}, length {point.length}")
        record = self._target.run(point.plan, point.batch, point.length)
        record = replace(record, plan=point.plan)  # plain `local` is recorded with its node
        partial.passes += 1
        self._done[point] += 1
        self._spent_s += record.total_s
        self._worked += point.batch * point.length
        return record

    def _tell(self, doing: str) -> None:
        wanted = dict.fromkeys(self._points, self._runs + 1)
        wanted |= dict.fromkeys(self._held_out, HELD_OUT_RUNS + 1)
        left = sum(
            max(0, passes - self._done[point]) * point.batch * point.length
            for point, passes in wanted.items()
        )
        left_s = left * self._spent_s / self._worked if self._worked else None
        self._report(Progress(self._done.total(), sum(wanted.values()), left_s, doing))

    def _map(self, partial: PartialProfile) -> PerformanceMap:
        measured = [(point, partial.records(point)) for point in self._points]
        scopes = [records[0].energy_scope for _, records in measured if records[0].energy_scope]
        return PerformanceMap(
            model_hash=self._target.identity.model_hash,
            model=self._target.model,
            nodes=self._target.identity.nodes,
            link=partial.link or MapLink(bandwidth_bps=1e9),
            measurements=tuple(Measurement.of(records) for _, records in measured),
            payload=self._target.payload,
            accuracy=self._target.accuracy,
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            prism_version=self._version,
            energy_scope=scopes[0] if scopes else "",
            source="measured by prism profile",
            coding=self._target.coding,
        )

    def _hold_out(
        self, perf: PerformanceMap, partial: PartialProfile, save: Callable[[], None]
    ) -> tuple[HeldOut, ...]:
        """Predict points that were not measured, measure them, and return both."""
        self._measure(self._held_out, HELD_OUT_RUNS, partial, save)
        model = CostModel(perf)
        found = []
        for point in self._held_out:
            try:
                predicted = model.predict(point.plan, point.batch, point.length, perf.link.state())
            except PlanError:
                continue  # a batch smaller than its nodes
            measured_s = median(record.total_s for record in partial.records(point))
            found.append(
                HeldOut(point.plan.shape, point.batch, point.length, predicted.total_s, measured_s)
            )
        return tuple(found)
