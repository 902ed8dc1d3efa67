"""From timed exchanges to the cost of an exchange: a + b * bytes."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from statistics import median

from prism.perfmap import MapLink

# Seconds per byte of a link too fast to be timed: 8 Tbit/s.
_FASTEST_S = 1e-12


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How long exchanges took over the real transport.

    Attributes:
        nodes: how many exchanged.
        sizes: payload bytes of one frame.
        together_s: by size, all nodes sending to all others at once.
        alone_s: by size, only the first sending.
        latency_s: one way, half of the smallest round trip.
    """

    nodes: int
    sizes: tuple[int, ...]
    together_s: tuple[float, ...]
    alone_s: tuple[float, ...]
    latency_s: float


def fit_line(sizes: tuple[int, ...], times_s: tuple[float, ...]) -> tuple[float, float]:
    """Return (a, b) of time = a + b * size; the median slope, so that one bad point moves nothing.

    Theil-Sen: b is the median over all pairs, a the median of what remains; both at least 0.
    """
    pairs = combinations(zip(sizes, times_s, strict=True), 2)
    slope = max(0.0, median((t2 - t1) / (s2 - s1) for (s1, t1), (s2, t2) in pairs if s1 != s2))
    rest = median(time - slope * size for size, time in zip(sizes, times_s, strict=True))
    return max(0.0, rest), slope


def fit_link(times: LinkTimes) -> MapLink:
    """Return the link as measured, with what an exchange on it costs.

    Sizes are counted as `planner.traffic.exchange_bytes` counts them: what one node receives, or
    on a shared medium what all send.
    """
    copies = times.nodes - 1
    counted = copies
    if _is_shared(times):
        counted = copies * times.nodes
    sizes = tuple(size * counted for size in times.sizes)
    fixed_s, per_byte_s = fit_line(sizes, times.together_s)
    per_byte_s = max(per_byte_s, _FASTEST_S)
    return MapLink(
        bandwidth_bps=8 / per_byte_s,
        latency_s=min(times.latency_s, fixed_s),
        fixed_s=fixed_s,
        per_byte_s=per_byte_s,
        shared=counted != copies,
    )


def _is_shared(times: LinkTimes) -> bool:
    """Whether all nodes sending at once take turns.

    With a port each that takes as long as the first node sending alone; on a shared medium it takes
    as many times longer as there are nodes. The line is drawn in the middle.
    """
    _, together_s = fit_line(times.sizes, times.together_s)
    _, alone_s = fit_line(times.sizes, times.alone_s)
    return together_s > alone_s * (1 + times.nodes) / 2 > 0
