"""The thread that looks at the link when no request does.

In local mode nothing else would ever notice that the link recovered.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from prism.cluster.adaptive import Adaptive
from prism.cluster.linktimes import LinkTimer
from prism.errors import ClusterError

_LOOK_EVERY_S = 0.25
_NEXT_TO_NOTHING_BYTES = 1


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
        nbytes = self._adaptive.probe_bytes
        probes = []
        for name in self._helpers():
            short_s = self._timer.round_trip_s(name, _NEXT_TO_NOTHING_BYTES)
            long_s = self._timer.round_trip_s(name, nbytes)
            probes.append((long_s, short_s))
        if probes:
            long_s, short_s = max(probes)
            self._adaptive.probed(nbytes, short_s, long_s, time.monotonic())
