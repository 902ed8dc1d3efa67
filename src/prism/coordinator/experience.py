"""What the runs of one model have taught: how long they take, what fails, what the links are like.

Requests ask it for deadlines and choices and tell it how every attempt ended.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from prism.coordinator.adaptive import Adaptive
from prism.coordinator.backoff import Backoff
from prism.coordinator.deadlines import Deadline, Expectation, RunTimes
from prism.coordinator.dispatch import Work
from prism.coordinator.recovery import Placed
from prism.errors import ClusterError, DeadlineExceeded, NodeFailed
from prism.planner import ImageCoding, Wanted
from prism.record import RunRecord

# What a request holds its nodes for when nobody knows better.
_UNKNOWN_S = 1.0


class Experience:
    """Everything learned about one model on one cluster; safe to use from all threads.

    Args:
        alive: returns the nodes alive.

    Attributes:
        adaptive: chooses plans; None without a performance map.
    """

    def __init__(self, alive: Callable[[], Sequence[str]]) -> None:
        self.adaptive: Adaptive | None = None
        self._alive = alive
        self._times = RunTimes()
        self._backoff = Backoff()
        self._lock = threading.Lock()

    def expected_s(self, placed: Placed, work: Work) -> float:
        """Return how long an attempt will hold its nodes, as far as anybody knows."""
        expectation = self._expectation(placed, work)
        return _UNKNOWN_S if expectation is None else expectation.seconds

    def deadline(self, placed: Placed, work: Work) -> Deadline:
        """Return the limits of an attempt."""
        expectation = self._expectation(placed, work)
        return Deadline() if expectation is None else expectation.deadline()

    def image_codings(self, placed: Placed) -> Mapping[str, ImageCoding]:
        """Return by helper what decides whether images are compressed on their way there."""
        return {} if self.adaptive is None else self.adaptive.image_codings(placed.nodes)

    def paused(self) -> Mapping[str, str]:
        """Return by plan shape or node what is left alone for now, each with the reason."""
        with self._lock:
            return self._backoff.paused(time.monotonic())

    def worked(self, placed: Placed, work: Work, record: RunRecord, *, alone: bool) -> None:
        """Learn from an attempt that ended well.

        Args:
            placed: what was run.
            work: on what.
            record: what it cost.
            alone: whether no other request was running, so that the links had nothing else to do.
        """
        with self._lock:
            self._times = self._times.took(placed.key, work.batch, work.length, record.total_s)
            for key in (placed.plan.shape, *placed.nodes):
                self._backoff = self._backoff.worked(key)
        if self.adaptive is not None:
            self.adaptive.observe(record, time.monotonic(), alone=alone)

    def failed(self, placed: Placed, work: Work, error: ClusterError, after_s: float) -> None:
        """Learn from an attempt that the machines failed.

        A node that is gone needs no pause: it is not chosen until it is back.
        """
        now_s = time.monotonic()
        late = isinstance(error, DeadlineExceeded)
        with self._lock:
            if late:
                self._times = self._times.given_up(placed.key, work.batch, work.length, after_s)
            if isinstance(error, NodeFailed) and error.node:
                self._backoff = self._backoff.failed(error.node, f"failed: {error}", now_s)
            elif set(placed.nodes) <= set(self._alive()):
                what = "timed out" if late else "lost its connections"
                self._backoff = self._backoff.failed(placed.plan.shape, what, now_s)
        if late and self.adaptive is not None:
            self.adaptive.observe_timeout(
                placed.plan, placed.nodes, work.batch, work.length, after_s, now_s
            )

    def cluster_changed(self) -> None:
        """Forget the pauses: with a node that came, plans are worth another try."""
        with self._lock:
            self._backoff = Backoff()

    def _expectation(self, placed: Placed, work: Work) -> Expectation | None:
        predicted_s = None
        if self.adaptive is not None:
            predicted_s = self.adaptive.predicted_s(
                placed.plan,
                placed.nodes,
                work.batch,
                work.length,
                time.monotonic(),
                Wanted.of(work.output),
            )
        with self._lock:
            return self._times.expected(placed.key, work.batch, work.length, predicted_s)
