"""The link as it is now, told from what runs cost anyway and from a probe when nothing ran.

An estimate is a frozen value; time is passed in. Single outliers (a retransmission, a scan of the
radio) are set aside; when several in a row agree that the link has changed, it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import median
from typing import Literal

from prism.errors import InputError
from prism.record import LinkState

PROBE_AFTER_S = 2.0
# Weight of a fresh sample, and the age after which the past has lost most of its own.
_WEIGHT = 0.25
_MEMORY_S = 5.0
# A sample this far off (a factor of 1.5) is an outlier until two more agree with it.
_GATE = math.log(1.5)
_WITNESSES = 3


@dataclass(frozen=True, slots=True)
class LinkSample:
    """`bits` took `seconds`, one latency included.

    `at_most` marks seconds as an upper bound: the transfer was hidden and took no longer.
    """

    bits: float
    seconds: float
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """What is believed about the link, and since when.

    Attributes:
        state: bandwidth, latency, and the time and source of the last sample that counted.
        suspects: logarithms of the bandwidth of recent samples that did not fit.
    """

    state: LinkState
    suspects: tuple[float, ...] = ()

    def age_s(self, now_s: float) -> float:
        """Return how long ago the link was last seen."""
        return now_s - self.state.measured_at_s

    def probe_due(self, now_s: float, after_s: float = PROBE_AFTER_S) -> bool:
        """Whether nothing has refreshed the estimate for `after_s` seconds."""
        return self.age_s(now_s) >= after_s

    def with_run(self, sample: LinkSample, now_s: float) -> LinkEstimate:
        """Return the estimate after a run that exchanged something."""
        return self._with_bandwidth(sample, now_s, "passive")

    def with_probe(self, sample: LinkSample, latency_s: float, now_s: float) -> LinkEstimate:
        """Return the estimate after a probe: a timed transfer and a one-way latency.

        Raises:
            InputError: the probe is impossible.
        """
        if not (sample.bits > 0 and sample.seconds > 0 and 0 <= latency_s < math.inf):
            raise InputError(
                f"a probe of {sample.bits} bits in {sample.seconds} s with {latency_s} s latency "
                f"is impossible; give times above 0"
            )
        weight = self._weight(now_s)
        smoothed_s = self.state.latency_s + weight * (latency_s - self.state.latency_s)
        moved = replace(self, state=replace(self.state, latency_s=smoothed_s))
        # Against the probe's own latency: what is left of its time is bandwidth.
        transfer = LinkSample(sample.bits, sample.seconds - latency_s + smoothed_s)
        return moved._with_bandwidth(transfer, now_s, "probe")

    def _with_bandwidth(
        self, sample: LinkSample, now_s: float, source: Literal["probe", "passive"]
    ) -> LinkEstimate:
        seconds = sample.seconds - self.state.latency_s
        # Less than a bit per second is no link, and below that lie numbers without a logarithm.
        if seconds <= 0 or sample.bits < seconds:
            return self
        believed = math.log(self.state.bandwidth_bps)
        seen = math.log(sample.bits / seconds)
        if sample.at_most and seen <= believed:
            return self._moved(believed, now_s, source)
        return self._heard(seen, believed, now_s, source)

    def _heard(
        self, seen: float, believed: float, now_s: float, source: Literal["probe", "passive"]
    ) -> LinkEstimate:
        if abs(seen - believed) <= _GATE:
            return self._moved(believed + self._weight(now_s) * (seen - believed), now_s, source)
        agreeing = [old for old in self.suspects if (old > believed) == (seen > believed)]
        suspects = (*agreeing, seen)
        # After a long silence the past is no better witness than the sample.
        needed = 1 if self.age_s(now_s) >= 3 * _MEMORY_S else _WITNESSES
        if len(suspects) < needed:
            return replace(self, suspects=suspects)
        return self._moved(median(suspects), now_s, source)

    def _moved(
        self, log_bandwidth: float, now_s: float, source: Literal["probe", "passive"]
    ) -> LinkEstimate:
        state = LinkState(math.exp(log_bandwidth), self.state.latency_s, now_s, source)
        return LinkEstimate(state)

    def _weight(self, now_s: float) -> float:
        return max(_WEIGHT, 1.0 - math.exp(-self.age_s(now_s) / _MEMORY_S))
