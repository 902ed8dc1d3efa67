"""Times of a plan that depend on the link, at its measured points and over another link."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from prism.perfmap import Surface
from prism.record import LinkState


class LinkTime(NamedTuple):
    """A time spent on the link at one point: how it was, and what it depends on.

    Attributes:
        measured_s: on the measured link.
        bits: that scale with the bandwidth.
        waits: latencies in it.
        slack_s: how much longer the transfers may take before this time grows.
    """

    measured_s: float
    bits: float = 0.0
    waits: int = 0
    slack_s: float = 0.0

    def after(self, per_bit_s: float, latency_s: float) -> float:
        """Return the time when a bit takes `per_bit_s` longer and a latency `latency_s`."""
        longer_s = self.bits * per_bit_s + self.waits * latency_s
        if longer_s > 0:
            longer_s = max(0.0, longer_s - self.slack_s)
        return max(0.0, self.measured_s + longer_s)

    def doubled(self, measured: LinkState) -> LinkTime:
        """Return the time for twice the rows on the measured link: twice the bits, no more waits.

        What hides behind computation goes on hiding, since that doubles too.
        """
        longer_s = 0.0 if self.slack_s else self.bits / measured.bandwidth_bps
        return self._replace(measured_s=self.measured_s + longer_s, bits=2 * self.bits)

    def less(self, bits: float, measured: LinkState) -> LinkTime:
        """Return the time without so many of its bits, over the measured link."""
        shorter_s = min(self.measured_s, bits / measured.bandwidth_bps)
        return self._replace(measured_s=self.measured_s - shorter_s, bits=self.bits - bits)


class LinkPart:
    """One link-dependent part of a plan's cost, over all measured points."""

    def __init__(self, times: Mapping[tuple[int, int], LinkTime], measured: LinkState) -> None:
        # One batch size alone would be continued in proportion, but latency is there once, however
        # many rows.
        batches = Counter(length for _, length in times)
        more = {
            (2 * batch, length): time.doubled(measured)
            for (batch, length), time in times.items()
            if batches[length] == 1
        }
        times = {**times, **more}
        self._times = times
        self._measured = measured
        self.as_measured = Surface({point: time.measured_s for point, time in times.items()})
        self._fixed = not any(time.bits or time.waits for time in times.values())

    def under(self, link: LinkState) -> Surface:
        """Return the part for another link."""
        if self._fixed:
            return self.as_measured
        per_bit_s = 1 / link.bandwidth_bps - 1 / self._measured.bandwidth_bps
        latency_s = link.latency_s - self._measured.latency_s
        return Surface(
            {point: time.after(per_bit_s, latency_s) for point, time in self._times.items()}
        )
