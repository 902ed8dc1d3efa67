"""How a believed quantity follows samples of it: smoothly, and not led astray by a single outlier.

Values are logarithms, so that "off by a factor of 1.5" means the same upwards and downwards.
"""

from __future__ import annotations

import math

# Weight of a fresh sample, and the age after which the past has lost most of its own.
LEAST_WEIGHT = 0.25
MEMORY_S = 5.0
# A sample off by more than this (a factor of 1.5) is an outlier until another one agrees.
_GATE = math.log(1.5)


def weight_after(age_s: float) -> float:
    """Return the weight of a sample when the last one is `age_s` old."""
    return max(LEAST_WEIGHT, 1.0 - math.exp(-max(0.0, age_s) / MEMORY_S))


def follow(
    believed: float, seen: float, suspect: float | None, weight: float, stale: bool = False
) -> tuple[float, float | None]:
    """Return what is believed after one more sample, and the sample set aside, if it was.

    Two samples in a row beyond the gate on the same side move the belief as far as both vouch
    for: to the one that lies nearer.

    Args:
        believed: logarithm of the value believed so far.
        seen: logarithm of the sample.
        suspect: logarithm of the sample before this one, if it was set aside.
        weight: of a sample that fits, 0..1.
        stale: whether the belief is so old that a sample is as good a witness by itself.
    """
    if abs(seen - believed) <= _GATE:
        return believed + weight * (seen - believed), None
    if stale:
        return seen, None
    if suspect is None or (suspect > believed) != (seen > believed):
        return believed, seen
    return min(suspect, seen, key=lambda value: abs(value - believed)), None
