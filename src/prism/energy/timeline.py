"""Samples in a row, and the energy between any two moments: arithmetic, without clock or thread.

A window is two marks in the row. What lies between a mark and the nearest samples is interpolated:
a counter is taken to grow evenly there, power to change evenly. So an end of a window is wrong by
at most the time to the sample after it, times the change of power in that time. A window that is
asked for before that sample exists goes on at the power seen last; asked again later it is exact.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from prism.energy.reading import EnergyReading, unknown
from prism.record import Quality

# Of a window's samples may fail, and of its length lie outside its own samples, and it still counts
# as measured.
_TOLERATED = 0.1
_KEPT = 8


@dataclass(frozen=True, slots=True)
class Sample:
    """What a probe saw at one instant: a counter of joules that only grows, power, or both."""

    joules: float | None = None
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class Total:
    """Running totals at one moment; a difference of two is energy."""

    at_s: float
    counted_j: float | None
    integrated_j: float | None
    watts: float | None

    def of(self, counted: bool) -> float | None:
        """Return the counter, or integrated power."""
        return self.counted_j if counted else self.integrated_j


class Count(NamedTuple):
    """Samples taken, and how many of them failed."""

    taken: int
    failed: int


@dataclass(slots=True)
class Mark:
    """One end of a window.

    Attributes:
        at_s: its moment.
        before: samples taken before it.
        until: samples taken until the first one after it, that one included; None before that.
        total: the totals there, once a sample after it exists; those of that sample if it is the
            first of its row.
        gap_s: how far away the nearest sample is.
    """

    at_s: float
    before: Count
    until: Count | None = None
    total: Total | None = None
    gap_s: float = 0.0


class Timeline:
    """A row of samples and the marks of open windows.

    Args:
        scope: what the joules cover.
        resolution_s: how often the counter moves; it says nothing about shorter windows.
    """

    def __init__(self, scope: str, resolution_s: float) -> None:
        self._scope = scope
        self._resolution_s = resolution_s
        self._recent: deque[Total] = deque(maxlen=_KEPT)
        self._pending: list[Mark] = []
        self._count = Count(0, 0)
        self._last_error = ""

    def restart(self) -> None:
        """Begin a new row after a pause: what was seen before says nothing about now."""
        for mark in self._pending:
            mark.total = self._last
        self._pending.clear()
        self._recent.clear()

    def add(self, at_s: float, sample: Sample) -> None:
        """Append a sample; times must not decrease."""
        self._counted(failed=False)
        before = self._last
        integrated_j = None
        if sample.watts is not None:
            integrated_j = 0.0
            if before is not None and before.integrated_j is not None and before.watts is not None:
                mean_w = (before.watts + sample.watts) / 2
                integrated_j = before.integrated_j + mean_w * (at_s - before.at_s)
        total = Total(at_s, sample.joules, integrated_j, sample.watts)
        self._settle(before, total)
        self._recent.append(total)

    def fail(self, reason: str) -> None:
        """Take note of a sample that failed."""
        self._counted(failed=True)
        self._last_error = reason

    def mark(self, at_s: float) -> Mark:
        """Return the mark of a moment no earlier than any sample or mark before."""
        mark = Mark(at_s, self._count)
        self._pending.append(mark)
        return mark

    def reading(self, begin: Mark, end: Mark) -> EnergyReading:
        """Return the energy between two marks, as far as it is known now."""
        duration_s = end.at_s - begin.at_s
        if duration_s <= 0:
            return unknown(self._scope, duration_s, "the window had no duration")
        until = end.until or self._count
        taken, failed = until.taken - begin.before.taken, until.failed - begin.before.failed
        if failed > _TOLERATED * taken:
            reason = f"{failed} of {taken} samples failed, last: {self._last_error}"
            return unknown(self._scope, duration_s, reason)
        return self._energy(begin, end, duration_s)

    @property
    def _last(self) -> Total | None:
        return self._recent[-1] if self._recent else None

    def _counted(self, failed: bool) -> None:
        self._count = Count(self._count.taken + 1, self._count.failed + failed)
        for mark in self._pending:
            mark.until = mark.until or self._count

    def _settle(self, before: Total | None, total: Total) -> None:
        for mark in [mark for mark in self._pending if mark.at_s <= total.at_s]:
            self._pending.remove(mark)
            mark.gap_s = total.at_s - mark.at_s
            if before is None:
                mark.total = total
            else:
                mark.gap_s = min(mark.gap_s, mark.at_s - before.at_s)
                mark.total = _between(before, total, mark.at_s)

    def _energy(self, begin: Mark, end: Mark, duration_s: float) -> EnergyReading:
        """Return the energy where samples did not fail: between samples, and beyond them."""
        start, stop = begin.total, end.total or self._last
        if start is None or stop is None or stop.at_s <= start.at_s:
            return self._guess(duration_s)
        counted = None not in (start.counted_j, stop.counted_j)
        if counted and duration_s < self._resolution_s:
            counted = False
        first_j, last_j = start.of(counted), stop.of(counted)
        if first_j is None or last_j is None:
            return self._too_short(duration_s)
        mean_w = (last_j - first_j) / (stop.at_s - start.at_s)
        early_s, late_s = max(0.0, start.at_s - begin.at_s), max(0.0, end.at_s - stop.at_s)
        early_w = start.watts if start.watts is not None else mean_w
        late_w = stop.watts
        if late_w is None and end.total is None:
            late_w = self._power_w()
        joules = last_j - first_j + early_s * early_w
        joules += late_s * (mean_w if late_w is None else late_w)
        quality: Quality = "measured"
        estimated = not counted and stop.counted_j is not None
        if estimated or begin.gap_s + end.gap_s + late_s > _TOLERATED * duration_s:
            quality = "estimated"
        return self._told(joules, quality, duration_s)

    def _guess(self, duration_s: float) -> EnergyReading:
        """Return the energy of a window in which nothing was sampled yet."""
        watts = self._power_w()
        if watts is None:
            return self._too_short(duration_s)
        return self._told(watts * duration_s, "estimated", duration_s)

    def _power_w(self) -> float | None:
        """Return the power seen last, told or from two states of the counter."""
        last = self._last
        if last is None or last.watts is not None:
            return None if last is None else last.watts
        return _slope_w(last, reversed(self._recent), self._resolution_s)

    def _told(self, joules: float, quality: Quality, duration_s: float) -> EnergyReading:
        if joules <= 0:
            told = f"the sensor reported {joules:g} J, which no running machine uses"
            return unknown(self._scope, duration_s, told)
        return EnergyReading(joules, self._scope, quality, duration_s)

    def _too_short(self, duration_s: float) -> EnergyReading:
        return unknown(
            self._scope,
            duration_s,
            f"the window lasted {duration_s * 1e3:.3g} ms, in which the sensor was not read often "
            f"enough (its counter is good for {self._resolution_s * 1e3:.3g} ms or more); measure "
            "several runs in one window",
        )


def _between(before: Total, after: Total, at_s: float) -> Total:
    """Return the totals at a moment between two samples."""
    part = (at_s - before.at_s) / (after.at_s - before.at_s) if after.at_s > before.at_s else 1.0
    counted_j = integrated_j = watts = None
    if before.counted_j is not None and after.counted_j is not None:
        counted_j = before.counted_j + part * (after.counted_j - before.counted_j)
    if before.watts is not None and after.watts is not None and before.integrated_j is not None:
        watts = before.watts + part * (after.watts - before.watts)
        integrated_j = before.integrated_j + (before.watts + watts) / 2 * (at_s - before.at_s)
    return Total(at_s, counted_j, integrated_j, watts)


def _slope_w(last: Total, earlier: Iterable[Total], resolution_s: float) -> float | None:
    """Return the counter's slope over the last stretch that it is good for."""
    for total in earlier:
        past_s = last.at_s - total.at_s
        if past_s > 0 and past_s >= resolution_s:
            if last.counted_j is None or total.counted_j is None:
                return None
            return (last.counted_j - total.counted_j) / past_s
    return None
