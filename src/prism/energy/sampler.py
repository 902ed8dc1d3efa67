"""Samples a probe in the background, so that a window costs its owner nothing.

Entering and leaving a window notes the time and asks for a sample; a thread takes it, however slow
the sensor is. The thread lives from the first window until none has been open for a while, so that
requests in a row start no thread each, and an idle node is not kept busy by its own meter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from prism.energy.reading import EnergyReading
from prism.energy.timeline import Mark, Sample, Timeline
from prism.energy.window import Busy, Finish
from prism.errors import ClusterError

# How long the thread goes on after the last window.
_LINGER_S = 2.0
# Rest after a sample, as a multiple of what it took: a sensor on a slow bus, or one that is a
# program of its own, keeps a core or the bus busy a fifth of the time at most.
_REST = 4.0


class Probe(Protocol):
    """A sensor.

    `sample` may raise OSError, ValueError or ClusterError when the sensor cannot be read just now.
    Calls never overlap, and come from a thread of their own.
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


class Sampler:
    """A source that reads a probe.

    A reading may be asked for at once, and again later. At once it goes on from the last sample to
    the window's end at the power seen last, and is `estimated` unless that is a small part of the
    window; later, with a sample from after the window, it is `measured`. Power is integrated by the
    trapezoid rule. A counter beats integration, except in windows shorter than its resolution.
    """

    def __init__(self, probe: Probe, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._probe = probe
        self._clock = clock
        self._changed = threading.Condition()
        self._timeline = Timeline(probe.scope, probe.resolution_s)
        self._windows = 0
        self._idle_since_s = 0.0
        self._wanted = False
        self._thread: threading.Thread | None = None

    @property
    def scope(self) -> str:
        """What the probe covers."""
        return self._probe.scope

    def begin(self) -> Finish:
        """Start a stretch of time; reads nothing here."""
        with self._changed:
            if self._thread is None:
                self._timeline.restart()
                self._thread = threading.Thread(target=self._run, name="prism-energy", daemon=True)
                self._thread.start()
            start = self._timeline.mark(self._clock())
            self._windows += 1
            self._want_sample()
        return lambda busy: self._end(start, busy)

    def _end(self, start: Mark, busy: Busy) -> Callable[[], EnergyReading]:
        del busy  # a sensor sees the load itself
        with self._changed:
            end = self._timeline.mark(self._clock())
            self._windows -= 1
            self._idle_since_s = time.monotonic()
            self._want_sample()
        return lambda: self._reading(start, end)

    def _reading(self, start: Mark, end: Mark) -> EnergyReading:
        with self._changed:
            return self._timeline.reading(start, end)

    def _want_sample(self) -> None:
        """Have a sample taken soon; the caller holds the lock."""
        self._wanted = True
        self._changed.notify_all()

    def _run(self) -> None:
        while self._await_turn():
            time.sleep(_REST * self._take())

    def _await_turn(self) -> bool:
        """Wait until a sample is wanted or due; false when nobody needs any more."""
        with self._changed:
            period_s = self._probe.period_s
            longest_s = period_s if self._windows else min(period_s, _LINGER_S)
            self._changed.wait_for(lambda: self._wanted, longest_s)
            idle_s = time.monotonic() - self._idle_since_s
            if not (self._wanted or self._windows or idle_s < _LINGER_S):
                self._thread = None
                return False
            self._wanted = False
            return True

    def _take(self) -> float:
        """Read the probe, not holding the lock; return how long that took."""
        before_s = self._clock()
        try:
            sample, failure = self._probe.sample(), ""
        except (OSError, ValueError, ClusterError) as error:
            sample, failure = Sample(), str(error)
        after_s = self._clock()
        with self._changed:
            if failure:
                self._timeline.fail(failure)
            else:
                # A slow sensor saw some moment of the call: take the middle.
                self._timeline.add((before_s + after_s) / 2, sample)
        return after_s - before_s
