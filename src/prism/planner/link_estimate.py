"""The link to one helper as it is now, told from what runs cost anyway, and from probes.

An estimate is a frozen value; time is passed in. Single outliers (a retransmission, a scan of the
radio) are set aside, in bandwidth and latency alike; when a second one in a row agrees that the
link has changed, it has.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from prism.errors import InputError
from prism.planner.gate import MEMORY_S, follow, weight_after
from prism.record import LinkState

PROBE_AFTER_S = 2.0
# Added before taking a logarithm: 0 is a latency too, and below this a factor means nothing.
_LATENCY_OFFSET_S = 1e-4

_Source = Literal["probe", "passive"]


@dataclass(frozen=True, slots=True)
class LinkSample:
    """`bits` took `seconds`, one latency included.

    Attributes:
        bits: that crossed the link.
        seconds: that they took.
        at_most: they took no longer than `seconds`, maybe less: the transfer was hidden.
        at_least: they took no less than `seconds`, maybe more: the run was given up.
    """

    bits: float
    seconds: float
    at_most: bool = False
    at_least: bool = False


@dataclass(frozen=True, slots=True)
class LinkEstimate:
    """What is believed about the link, and since when.

    Attributes:
        state: bandwidth, latency, and the time and source of the last sample that counted.
        suspect: logarithm of the bandwidth of the last sample, if it did not fit.
        latency_suspect: likewise of the latency.
    """

    state: LinkState
    suspect: float | None = None
    latency_suspect: float | None = None

    def age_s(self, now_s: float) -> float:
        """Return how long ago the link was last seen."""
        return now_s - self.state.measured_at_s

    def probe_due(self, now_s: float, after_s: float = PROBE_AFTER_S) -> bool:
        """Whether nothing has refreshed the estimate for `after_s` seconds."""
        return self.age_s(now_s) >= after_s

    def with_run(self, sample: LinkSample, now_s: float) -> LinkEstimate:
        """Return the estimate after a run that exchanged something, or was given up.

        A run that only bounds its time moves the estimate only if the estimate breaks the bound.
        """
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
        moved = self._with_latency(latency_s, now_s)
        # Against the probe's own latency: what is left of its time is bandwidth.
        transfer = LinkSample(sample.bits, sample.seconds - latency_s + moved.state.latency_s)
        return moved._with_bandwidth(transfer, now_s, "probe")

    def _with_latency(self, latency_s: float, now_s: float) -> LinkEstimate:
        believed, suspect = follow(
            math.log(self.state.latency_s + _LATENCY_OFFSET_S),
            math.log(latency_s + _LATENCY_OFFSET_S),
            self.latency_suspect,
            weight_after(self.age_s(now_s)),
            self._stale(now_s),
        )
        if suspect is not None:
            return replace(self, latency_suspect=suspect)
        believed_s = max(0.0, math.exp(believed) - _LATENCY_OFFSET_S)
        return replace(self, state=replace(self.state, latency_s=believed_s), latency_suspect=None)

    def _with_bandwidth(self, sample: LinkSample, now_s: float, source: _Source) -> LinkEstimate:
        seconds = sample.seconds - self.state.latency_s
        # Less than a bit per second is no link, and below that lie numbers without a logarithm.
        if seconds <= 0 or sample.bits < seconds:
            return self
        believed = math.log(self.state.bandwidth_bps)
        seen = math.log(sample.bits / seconds)
        if sample.at_least and seen >= believed:
            return self  # slower than this bound it is believed to be anyway
        if sample.at_most and seen <= believed:
            return self._moved(believed, now_s, source)
        believed, suspect = follow(
            believed, seen, self.suspect, weight_after(self.age_s(now_s)), self._stale(now_s)
        )
        if suspect is not None:
            return replace(self, suspect=suspect)
        return self._moved(believed, now_s, source)

    def _moved(self, log_bandwidth: float, now_s: float, source: _Source) -> LinkEstimate:
        state = LinkState(math.exp(log_bandwidth), self.state.latency_s, now_s, source)
        return replace(self, state=state, suspect=None)

    def _stale(self, now_s: float) -> bool:
        """Whether after a long silence the past is no better witness than one sample."""
        return self.age_s(now_s) >= 3 * MEMORY_S
