"""A recorded power trace in place of a sensor, for demos and tests: CSV rows of time_s, watts.

The trace starts with the first window, runs with the clock, and starts over at its end. It says
what another run used, not this one, so its readings are estimates.
"""

from __future__ import annotations

import bisect
import csv
import math
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from prism.energy.reading import EnergyReading, unknown
from prism.energy.window import Busy, Finish
from prism.errors import ConfigError

Point = tuple[float, float]


class Replay:
    """A source that integrates a trace of (seconds, watts), linear between its points."""

    def __init__(
        self, trace: list[Point], *, scope: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Take at least two points with growing times, the first at any time."""
        assert len(trace) >= 2, "read_trace gives two points or more"
        first_s = trace[0][0]
        self._times = [at_s - first_s for at_s, _ in trace]
        self._watts = [watts for _, watts in trace]
        self._energy = [0.0]
        for (t0, w0), (t1, w1) in pairwise(trace):
            self._energy.append(self._energy[-1] + (w0 + w1) / 2 * (t1 - t0))
        self._scope = scope
        self._clock = clock
        self._lock = threading.Lock()
        self._origin_s: float | None = None

    @property
    def scope(self) -> str:
        """The file the trace came from."""
        return self._scope

    def begin(self) -> Finish:
        """Start a stretch of time; the first one starts the trace."""
        now_s = self._clock()
        with self._lock:
            if self._origin_s is None:
                self._origin_s = now_s
            origin_s = self._origin_s

        def finish(busy: Busy) -> Callable[[], EnergyReading]:
            del busy  # the trace holds its own load
            end_s = self._clock()
            return lambda: self._between(now_s - origin_s, end_s - origin_s)

        return finish

    def _between(self, start_s: float, end_s: float) -> EnergyReading:
        """Return the energy between two moments of the trace."""
        if end_s <= start_s:
            return unknown(self._scope, end_s - start_s, "the window had no duration")
        joules = self.energy_until(end_s) - self.energy_until(start_s)
        return EnergyReading(joules, self._scope, "estimated", end_s - start_s)

    def energy_until(self, at_s: float) -> float:
        """Return the joules of the trace from its start to `at_s`, going round as needed."""
        rounds, rest_s = divmod(at_s, self._times[-1])
        left = min(bisect.bisect_right(self._times, rest_s), len(self._times) - 1) - 1
        t0, t1 = self._times[left : left + 2]
        w0, w1 = self._watts[left : left + 2]
        into_s = rest_s - t0
        watts_now = w0 + (w1 - w0) * into_s / (t1 - t0)
        return rounds * self._energy[-1] + self._energy[left] + (w0 + watts_now) / 2 * into_s


def read_trace(path: Path) -> list[Point]:
    """Read a CSV file with the columns time_s and watts; others are ignored.

    Raises:
        ConfigError: the file is missing, lacks a column, or a row is wrong; the message names it.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            missing = {"time_s", "watts"} - set(rows.fieldnames or ())
            if missing:
                raise ConfigError(
                    f"{path} lacks the column {' and '.join(sorted(missing))}; "
                    "its first line must be time_s,watts"
                )
            trace: list[Point] = []
            for row in rows:
                trace.append(_point(f"{path} line {rows.line_num}", row, trace))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"the power trace {path} cannot be read: {error}") from error
    if len(trace) < 2:
        raise ConfigError(f"{path} has {len(trace)} rows; a power trace needs at least 2")
    return trace


def _point(where: str, row: dict[str, str], trace: list[Point]) -> Point:
    try:
        at_s, watts = float(row["time_s"]), float(row["watts"])
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{where} is not two numbers, time_s,watts") from error
    if not (math.isfinite(at_s) and math.isfinite(watts) and watts >= 0):
        raise ConfigError(f"{where}: {at_s} s, {watts} W; both finite and watts not negative")
    if trace and at_s <= trace[-1][0]:
        raise ConfigError(f"{where}: time {at_s} s does not come after {trace[-1][0]} s")
    return at_s, watts
