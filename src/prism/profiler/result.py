"""From records to the map: what was measured, what was left out, and what the map makes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from statistics import median

from prism.errors import PlanError
from prism.perfmap import HeldOut, LeftOutPoint, MapLink, Measurement, PerformanceMap
from prism.planner import CostModel
from prism.profiler.forecast import Forecast
from prism.profiler.partial import PartialProfile
from prism.profiler.points import Point, Settings
from prism.profiler.target import ProfileTarget


def map_of(
    target: ProfileTarget,
    points: Sequence[Point],
    partial: PartialProfile,
    settings: Settings,
    prism_version: str,
) -> PerformanceMap:
    """Return the map of what was measured at `points`, without held-out points."""
    measured = [records for point in points if (records := partial.records(point))]
    scopes = [records[0].energy_scope for records in measured if records[0].energy_scope]
    return PerformanceMap(
        model_hash=target.identity.model_hash,
        model=target.model,
        nodes=target.identity.nodes,
        link=partial.link or MapLink(bandwidth_bps=1e9),
        measurements=tuple(map(Measurement.of, measured)),
        payload=target.payload,
        accuracy=target.accuracy,
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        prism_version=prism_version,
        energy_scope=scopes[0] if scopes else "",
        source="measured by prism profile",
        budget_s=settings.budget_s,
        coding=target.coding,
    )


def predictable(perf: PerformanceMap, points: Iterable[Point]) -> dict[Point, float]:
    """Return the seconds that a map predicts, for those points that it covers."""
    model = CostModel(perf)
    found = {}
    for point in points:
        try:
            found[point] = model.predict(*point, perf.link.state()).total_s
        except PlanError:
            continue
    return found


def with_predictions(
    perf: PerformanceMap,
    points: Sequence[Point],
    predicted_s: Mapping[Point, float],
    partial: PartialProfile,
    forecast: Forecast,
) -> PerformanceMap:
    """Return the map with its error at held-out points, and with the points that it lacks.

    Args:
        perf: what was measured.
        points: that were to be measured.
        predicted_s: of the held-out points.
        partial: has the records of both.
        forecast: what the points that it lacks would have taken.
    """
    held_out = [
        HeldOut(plan.shape, batch, length, seconds, median(run.total_s for run in records))
        for (plan, batch, length), seconds in predicted_s.items()
        if (records := partial.records(Point(plan, batch, length)))
    ]
    lacking = [point for point in points if not partial.records(point)]
    predictions = predictable(perf, lacking)
    return replace(
        perf,
        held_out=tuple(held_out),
        left_out=tuple(
            LeftOutPoint(
                point.plan.shape,
                point.batch,
                point.length,
                predictions.get(point),
                forecast.pass_s(point),
            )
            for point in lacking
        ),
        passes=partial.passes,
        seconds_spent=partial.seconds_spent,
    )
