"""Turns a probe that can be read at an instant into energy over a stretch of time.

All open windows share one running total: a window is the difference between its end and its start,
both sampled at those very moments, so that a window shorter than the sampling period still has
two points under it. A background thread samples in between, and lives only while a window is open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from prism.energy.reading import EnergyReading, unknown
from prism.energy.window import Busy, Finish
from prism.errors import ClusterError
from prism.record import Quality

_TOLERATED_FAILURES = 0.1


@dataclass(frozen=True, slots=True)
class Sample:
    """What a probe saw at one instant: a counter of joules that only grows, power, or both."""

    joules: float | None = None
    watts: float | None = None


class Probe(Protocol):
    """A sensor.

    `sample` may raise OSError, ValueError or ClusterError when the sensor cannot be read just now.
    Calls never overlap.
    """

    @property
    def scope(self) -> str:
        """What the sensor covers."""

    @property
    def period_s(self) -> float:
        """How often it must be read while a window is open."""

    @property
    def resolution_s(self) -> float:
        """How often its counter moves; the counter says nothing about shorter windows."""

    def sample(self) -> Sample:
        """Read the sensor now."""


@dataclass(frozen=True, slots=True)
class _Point:
    """The running totals at one sample; `error` says that this very sample failed."""

    at_s: float
    counted_j: float | None
    integrated_j: float | None
    taken: int
    failed: int
    error: str | None


class Sampler:
    """A source that reads a probe.

    Power is integrated by the trapezoid rule. A counter beats integration, except in windows
    shorter than its resolution: there the probe's power, if it has any, gives an estimate.
    """

    def __init__(
        self,
        probe: Probe,
        *,
        clock: Callable[[], float] = time.monotonic,
        background: bool = True,
    ) -> None:
        """Wrap `probe`; without `background`, only window ends and `tick` take samples."""
        self._probe = probe
        self._clock = clock
        self._background = background
        self._lock = threading.Lock()
        self._windows = 0
        self._last_power: tuple[float, float] | None = None
        self._integrated_j = 0.0
        self._taken = 0
        self._failed = 0
        self._last_error = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def scope(self) -> str:
        """What the probe covers."""
        return self._probe.scope

    def tick(self) -> None:
        """Take one sample now, if a window is open."""
        with self._lock:
            if self._windows:
                self._take()

    def begin(self) -> Finish:
        """Start a stretch of time with a sample, and the thread if this is the first one."""
        with self._lock:
            # The idle gap before it enters the total here, ahead of the start: nobody's energy.
            start = self._take()
            self._windows += 1
            if self._background and self._thread is None:
                self._stop = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._stop,), name="prism-energy", daemon=True
                )
                self._thread.start()
        return lambda busy: self._end(start, busy)

    def _end(self, start: _Point, busy: Busy) -> EnergyReading:
        del busy  # a sensor sees the load itself
        with self._lock:
            try:
                end = self._take()
                last_error = self._last_error
            finally:
                thread = self._close()
        if thread is not None:
            thread.join()
        return self._difference(start, end, last_error)

    def _close(self) -> threading.Thread | None:
        """Count one window less; return the thread that now ends, if it was the last one."""
        self._windows -= 1
        if self._windows:
            return None
        self._stop.set()
        thread, self._thread = self._thread, None
        return thread

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._probe.period_s):
            with self._lock:
                # Checked again: the window may have closed while this thread waited for the lock.
                if stop.is_set():
                    return
                self._take()

    def _take(self) -> _Point:
        """Sample and advance the totals; the caller holds the lock."""
        before_s = self._clock()
        sample, error = Sample(), None
        try:
            sample = self._probe.sample()
        except (OSError, ValueError, ClusterError) as failure:
            error = str(failure)
            self._last_error = error
            self._failed += 1
        self._taken += 1
        # A slow sensor (a bus, a child process) saw some moment of the call: take the middle.
        at_s = (before_s + self._clock()) / 2
        if sample.watts is not None:
            if self._last_power is not None:
                then_s, watts = self._last_power
                self._integrated_j += (watts + sample.watts) / 2 * (at_s - then_s)
            self._last_power = (at_s, sample.watts)
        integrated_j = self._integrated_j if sample.watts is not None else None
        return _Point(at_s, sample.joules, integrated_j, self._taken, self._failed, error)

    def _difference(self, start: _Point, end: _Point, last_error: str) -> EnergyReading:
        duration_s = end.at_s - start.at_s
        fault = _fault(start, end, last_error)
        if fault is not None:
            return unknown(self.scope, duration_s, fault)
        quality: Quality = "measured"
        steps = duration_s >= self._probe.resolution_s
        if start.counted_j is not None and end.counted_j is not None and steps:
            joules = end.counted_j - start.counted_j
        elif start.integrated_j is not None and end.integrated_j is not None:
            joules = end.integrated_j - start.integrated_j
            quality = "measured" if end.counted_j is None else "estimated"
        else:
            return unknown(
                self.scope,
                duration_s,
                f"the window lasted {duration_s * 1e3:.3g} ms, but the counter is good for "
                f"{self._probe.resolution_s * 1e3:.3g} ms or more; measure several runs in one "
                "window",
            )
        if joules <= 0:
            told = f"the sensor reported {joules:g} J, which no running machine uses"
            return unknown(self.scope, duration_s, told)
        return EnergyReading(joules, self.scope, quality, duration_s)


def _fault(start: _Point, end: _Point, last_error: str) -> str | None:
    """Return why nothing can be said between two samples, or None."""
    for point, name in ((start, "first"), (end, "last")):
        if point.error is not None:
            return f"the {name} sample failed: {point.error}"
    failed, taken = end.failed - start.failed, end.taken - start.taken
    if failed > _TOLERATED_FAILURES * taken:
        return f"{failed} of {taken} samples failed, last: {last_error}"
    return None if end.at_s > start.at_s else "the window had no duration"
