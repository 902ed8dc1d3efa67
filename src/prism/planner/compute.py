"""How fast one node computes now, against what the map measured.

A node that throttles, or has other work, is slow for every plan and over any link; booked as
bandwidth it would condemn a link that is well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from prism.planner.gate import LEAST_WEIGHT, follow

# A slow node is used less, so nothing would ever show that it recovered: belief fades by itself.
_HALF_LIFE_S = 30.0


@dataclass(frozen=True, slots=True)
class ComputeEstimate:
    """What is believed about one node's computation, and since when.

    Attributes:
        factor: computation takes so many times as long as in the map, when last seen.
        measured_at_s: time of the last run that counted, on the observer's monotonic clock.
        suspect: logarithm of the factor of the last run, if it did not fit.
    """

    factor: float = 1.0
    measured_at_s: float = 0.0
    suspect: float | None = None

    def factor_at(self, now_s: float) -> float:
        """Return the factor to reckon with now: what was seen fades towards 1."""
        age_s = max(0.0, now_s - self.measured_at_s)
        return float(self.factor ** (0.5 ** (age_s / _HALF_LIFE_S)))

    def with_run(self, ratio: float, now_s: float) -> ComputeEstimate:
        """Return the estimate after a run.

        Args:
            ratio: computation measured over computation expected (`CostModel.compute_samples`).
            now_s: when the run ended.
        """
        if not 0 < ratio < math.inf:
            return self  # nothing was computed, or nothing was expected
        believed, suspect = follow(
            math.log(self.factor_at(now_s)), math.log(ratio), self.suspect, LEAST_WEIGHT
        )
        if suspect is not None:
            return replace(self, suspect=suspect)
        return ComputeEstimate(math.exp(believed), now_s)
