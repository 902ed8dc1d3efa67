"""Positions to spans to segments: who owns which rows, and which rows are averaged together.

Pure arithmetic on sizes. Every node computes the same split on its own, so the result must depend
on nothing but the arguments: shares are apportioned in exact fractions, ties go to the larger
share, then to the earlier node. Equal shares give the sizes of `torch.tensor_split`.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from prism.errors import RequestError


class Span(NamedTuple):
    """The rows `start` up to, not including, `stop`."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.start


def spans(length: int, nodes: int, shares: Sequence[float] = ()) -> tuple[Span, ...]:
    """Split `length` positions over `nodes`, in order, at least one position each.

    Args:
        length: number of positions.
        nodes: number of nodes.
        shares: one weight per node, as in a `Plan`; empty = equal.

    Returns:
        One span per node. A node whose share rounds to nothing gets one position; the rest is
        apportioned to the others by their shares.

    Raises:
        RequestError: there are fewer positions than nodes.
    """
    if length < nodes:
        raise RequestError(
            f"a sequence of {length} positions cannot be split over {nodes} nodes; "
            f"use a plan with fewer nodes, or a longer input"
        )
    weights = _weights(nodes, shares)
    sizes = _apportion(length, weights)
    raised: set[int] = set()
    while 0 in sizes:
        raised |= {node for node, size in enumerate(sizes) if size == 0}
        kept = [Fraction(0) if node in raised else weight for node, weight in enumerate(weights)]
        sizes = _apportion(length - len(raised), kept)
        sizes = [1 if node in raised else size for node, size in enumerate(sizes)]
    return _consecutive(sizes)


def rows(batch: int, nodes: int, shares: Sequence[float] = ()) -> tuple[Span, ...]:
    """Split `batch` rows over `nodes`, in order; a node may get none.

    Args:
        batch: number of rows.
        nodes: number of nodes.
        shares: one weight per node, as in a `Plan`; empty = equal. A zero share gets no row.

    Returns:
        One span per node, each within one row of its exact quota.
    """
    return _consecutive(_apportion(batch, _weights(nodes, shares)))


def segment_sizes(rows: int, segments: int | None) -> tuple[int, ...]:
    """Return the sizes of the segments that a partition of `rows` rows is averaged in.

    Args:
        rows: rows of the partition.
        segments: means per partition (L); None lets every row stand alone.

    Returns:
        `min(segments, rows)` sizes of at least 1, the larger ones first.
    """
    count = rows if segments is None else min(segments, rows)
    return tuple(_apportion(rows, _weights(count, ()))) if count else ()


def _weights(nodes: int, shares: Sequence[float]) -> list[Fraction]:
    assert nodes >= 1 and len(shares) in (0, nodes), (nodes, shares)
    weights = [Fraction(share) for share in shares or (1,) * nodes]
    assert min(weights) >= 0 and any(weights), shares
    return weights


def _apportion(total: int, weights: Sequence[Fraction]) -> list[int]:
    """Largest-remainder rounding of `total` by `weights`."""
    whole = sum(weights)
    quotas = [total * weight / whole for weight in weights]
    sizes = [int(quota) for quota in quotas]
    by_claim = sorted(
        range(len(quotas)), key=lambda node: (sizes[node] - quotas[node], -weights[node], node)
    )
    for node in by_claim[: total - sum(sizes)]:
        sizes[node] += 1
    return sizes


def _consecutive(sizes: Sequence[int]) -> tuple[Span, ...]:
    stops = list(accumulate(sizes))
    return tuple(Span(stop - size, stop) for size, stop in zip(sizes, stops, strict=True))
