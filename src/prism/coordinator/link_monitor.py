"""The thread that looks at the links when no request does.

In local mode nothing else would ever notice that a link recovered.
"""

from __future__ import annotations

import threading
import time
from typing import NamedTuple

from prism.coordinator.adaptive import Adaptive
from prism.coordinator.live import LiveCluster
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


class LinkMonitor:
    """Probes the way to every helper when it is due and nothing else uses it.

    Args:
        adaptive: says when a probe is due, and learns from it.
        live: the cluster.
    """

    def __init__(self, adaptive: Adaptive, live: LiveCluster) -> None:
        self._adaptive = adaptive
        self._live = live
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="prism-link-monitor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Safe to call twice."""
        self._ending.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ending.wait(_LOOK_EVERY_S):
            for name in self._live.roster.helpers:
                if self._ending.is_set():
                    return
                if self._adaptive.probe_due(name, time.monotonic()) and not self._busy(name):
                    self._probe(name)

    def _busy(self, name: str) -> bool:
        """Whether a request may be using the way to a node, and be slowed down by a probe."""
        return self._live.scheduler.occupied(name)

    def _probe(self, name: str) -> None:
        try:
            probe = self._round_trips(name)
        except ClusterError:
            return  # a helper that is gone is the membership's business
        if not self._busy(name):  # else the request may have slowed the probe down
            self._adaptive.probed(name, *probe, time.monotonic())

    def _round_trips(self, name: str) -> _Probe:
        timer = self._live.timer
        short_s = timer.round_trip_s(name, _NEXT_TO_NOTHING_BYTES)
        for nbytes in self._adaptive.probe_sizes(name):
            long_s = timer.round_trip_s(name, nbytes)
            if long_s - short_s >= _LONG_ENOUGH_S:
                break
        return _Probe(nbytes, short_s, long_s)
