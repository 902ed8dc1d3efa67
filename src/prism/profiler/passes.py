"""Runs passes: in turns, within the budget, noted as they come; and says how far a profile is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from prism.profiler.budget import Budget
from prism.profiler.forecast import Forecast
from prism.profiler.partial import PartialProfile
from prism.profiler.points import Point
from prism.profiler.target import ProfileTarget
from prism.profiler.turns import take_turns
from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a profile is.

    Attributes:
        done: forward passes run, those of an interrupted profile included.
        total: forward passes in all, as far as they fit into the budget.
        left_s: estimated time left; None before the first pass.
        doing: what is measured now, in words.
    """

    done: int
    total: int
    left_s: float | None
    doing: str


class PassRunner:
    """Measures points and keeps the records.

    Args:
        target: the model on the cluster.
        partial: takes the records.
        forecast: says what a pass will take, and learns from each.
        budget: no pass is begun that does not fit.
        report: told about progress, before every pass.
    """

    def __init__(
        self,
        target: ProfileTarget,
        partial: PartialProfile,
        forecast: Forecast,
        budget: Budget,
        report: Callable[[Progress], None],
    ) -> None:
        self._target, self._partial = target, partial
        self._forecast, self._budget = forecast, budget
        self._report = report
        self._before_s = 0.0
        self._done = Counter[Point]()
        self._wanted: Mapping[Point, int] = {}
        self._expected_s: dict[Point, float] = {}

    def begin(self) -> None:
        """Count the time spent from here on to what the partial has spent already."""
        self._before_s = self._partial.seconds_spent

    def expect(self, wanted: Mapping[Point, int]) -> None:
        """Reckon with so many passes of each point, those done included."""
        self._wanted = wanted
        self._expected_s = {point: self._forecast.pass_s(point) for point in wanted}

    def save(self) -> None:
        """Write down what was measured, and the time it took.

        Raises:
            MapError: it cannot be written.
        """
        self._partial.seconds_spent = self._before_s + self._budget.elapsed_s
        self._partial.save()

    def measure(self, group: Sequence[Point], runs: int, enough: int) -> None:
        """Run every point of a group `runs` times, in turns, after one warm-up each.

        What the budget has no time for is not run: a point may end with fewer records, or none.

        Args:
            group: plans of about the same size.
            runs: of each point, those noted included.
            enough: a point with so many records is measured.
        """
        missing = [point for point in group if len(self._partial.records(point)) < enough]
        for point in group:
            self._done[point] = len(self._partial.records(point)) + (point not in missing)
        warm = [point for point in missing if self._fits(point) and self.run(point)]
        self.expect(self._wanted)
        for turn in take_turns(warm, runs):
            for point in turn:
                if len(self._partial.records(point)) < runs and self._fits(point):
                    self._partial.add(point, self.run(point))
            self.save()

    def run(self, point: Point) -> RunRecord:
        """Run one pass, whether there is time or not; the record is not kept."""
        self.tell(f"{point.plan}, batch {point.batch}, length {point.length}")
        before_s = self._budget.elapsed_s
        record = self._target.run(point.plan, point.batch, point.length)
        self._forecast.note(point, self._budget.elapsed_s - before_s)
        if not any(self._expected_s.values()):
            self.expect(self._wanted)  # the first pass of all
        self._partial.passes += 1
        self._done[point] += 1
        return replace(record, plan=point.plan)  # plain `local` is recorded with its node

    def tell(self, doing: str) -> None:
        """Report what is done now, and how much is left."""
        left = {point: max(0, count - self._done[point]) for point, count in self._wanted.items()}
        left_s = sum(passes * self._expected_s[point] for point, passes in left.items())
        left_s = min(left_s, max(0.0, self._budget.limit_s - self._budget.elapsed_s))
        known = any(self._expected_s.values())
        done = self._done.total()
        self._report(Progress(done, done + sum(left.values()), left_s if known else None, doing))

    def _fits(self, point: Point) -> bool:
        return self._forecast.pass_s(point) <= self._budget.left_s
