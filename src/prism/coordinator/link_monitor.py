"""The thread that looks at the link when no request does.

In local mode nothing else would ever notice that the link recovered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from prism.coordinator.adaptive import Adaptive
from prism.coordinator.link_timing import LinkTimer
from prism.errors import ClusterError

_LOOK_EVERY_S = 0.25
_NEXT_TO_NOTHING_BYTES = 1
# A transfer this long tells the bandwidth; no longer one is needed.
_LONG_ENOUGH_S = 0.02


class _Probe(NamedTuple):
    """A round trip with next to nothing, and one with `nbytes` to there."""

    nbytes: int
    short_s: float
    long_s: float

    def with_bytes(self, nbytes: int) -> float:
        """Return how long a round trip with so many bytes would take."""
        return self.short_s + (self.long_s - self.short_s) * nbytes / self.nbytes


class LinkWatch:
    """Probes the link to the helpers when it is due, between requests.

    Args:
        adaptive: says when a probe is due, and learns from it.
        timer: makes the probe.
        helpers: names of the helpers alive.
        turn: held by the request that is being answered.
    """

    def __init__(
        self,
        adaptive: Adaptive,
        timer: LinkTimer,
        helpers: Callable[[], tuple[str, ...]],
        turn: threading.Lock,
    ) -> None:
        self._adaptive = adaptive
        self._timer = timer
        self._helpers = helpers
        self._turn = turn
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="prism-link-watch", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_EVERY_S):
            if not self._adaptive.probe_due(time.monotonic()):
                continue
            if not self._turn.acquire(blocking=False):
                continue
            try:
                self._probe()
            except ClusterError:
                continue  # a helper that is gone is the membership's business
            finally:
                self._turn.release()

    def _probe(self) -> None:
        """Time the way to every helper; believe the slowest, for which all wait."""
        sizes = self._adaptive.probe_sizes
        probes = [self._probe_one(name, sizes) for name in self._helpers()]
        if probes:
            slowest = max(probes, key=lambda probe: probe.with_bytes(sizes[-1]))
            self._adaptive.probed(*slowest, time.monotonic())

    def _probe_one(self, name: str, sizes: tuple[int, ...]) -> _Probe:
        short_s = self._timer.round_trip_s(name, _NEXT_TO_NOTHING_BYTES)
        for nbytes in sizes:
            long_s = self._timer.round_trip_s(name, nbytes)
            if long_s - short_s >= _LONG_ENOUGH_S:
                break
        return _Probe(nbytes, short_s, long_s)
