"""What a number of measured samples is worth: losses with their 95 % intervals. No torch.

Sources: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions"
(Statistics in Medicine 24, 2005); Wilson's score interval; the ratio estimator over clusters of
Cochran, "Sampling Techniques", chapter 6; Student's t quantiles by Fisher and Cornish (1960).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

_Z_95 = 1.959963984540054
# 97.5 % quantiles of Student's t for 1 to 4 degrees of freedom, where the series is poor.
_T_FEW = (12.7062, 4.3027, 3.1824, 2.7764)


@dataclass(frozen=True, slots=True)
class Loss:
    """Something lost, 0..1 (below 0 = gained), and the 95 % interval it lies in."""

    value: float
    low: float
    high: float


def wilson_interval(correct: int, count: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of `correct` hits in `count`."""
    share, z2 = correct / count, _Z_95**2
    centre = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = _Z_95 * math.sqrt(share * (1 - share) / count + z2 / (4 * count**2)) / (1 + z2 / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def lost_accuracy(lost: int, gained: int, count: int) -> Loss:
    """Return the accuracy lost between two ways to answer the same `count` samples.

    Args:
        lost: samples that only the first way had right.
        gained: samples that only the second had.
        count: all samples, at least 1.
    """
    centre = (lost - gained) / (count + 2)
    variance = (lost + gained + 1) - (lost - gained) ** 2 / (count + 2)
    half = _Z_95 * math.sqrt(variance) / (count + 2)
    return Loss((lost - gained) / count, max(-1.0, centre - half), min(1.0, centre + half))


def lost_agreement(same: Sequence[int], of: Sequence[int]) -> Loss:
    """Return the share of answers that are not the exact ones.

    Args:
        same: equal answers of each sample.
        of: all answers of each sample: 1 for a class, its tokens for a text, whose answers depend
            on each other and count as a cluster.
    """
    differing = [all_of - equal for equal, all_of in zip(same, of, strict=True)]
    total = sum(of)
    low, high = wilson_interval(sum(differing), total)
    share = sum(differing) / total
    if total > len(of):
        half = _cluster_half_width(differing, of)
        # Clusters that happen to be alike say nothing of their spread; single answers still do.
        low, high = max(0.0, min(low, share - half)), min(1.0, max(high, share + half))
    return Loss(share, low, high)


def mean_loss(losses: Sequence[float]) -> Loss:
    """Return the mean of the samples' losses, with Student's interval.

    One sample says nothing of the spread: then everything from its loss up to 1 is possible.
    """
    mean = fmean(losses)
    if len(losses) < 2:
        return Loss(mean, min(0.0, mean), max(1.0, mean))
    half = _t_95(len(losses) - 1) * stdev(losses) / math.sqrt(len(losses))
    return Loss(mean, mean - half, mean + half)


def _cluster_half_width(hits: Sequence[int], of: Sequence[int]) -> float:
    """Return half the width of the interval of sum(hits) / sum(of) over independent clusters."""
    count = len(of)
    if count < 2:
        return 1.0
    share = sum(hits) / sum(of)
    residual = sum((hit - share * each) ** 2 for hit, each in zip(hits, of, strict=True))
    spread = math.sqrt(count / (count - 1) * residual) / sum(of)
    return _t_95(count - 1) * spread


def _t_95(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t."""
    if freedom <= len(_T_FEW):
        return _T_FEW[freedom - 1]
    z = _Z_95
    terms: tuple[float, ...] = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return math.fsum(term / freedom**power for power, term in enumerate(terms))
