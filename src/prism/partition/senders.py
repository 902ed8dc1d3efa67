"""Under a sequence plan: how many rows each rank has and sends, and whose it attends to.

Pure arithmetic on a plan, which planners do over and over: positions are apportioned once.
"""

from __future__ import annotations

from functools import lru_cache

from prism.partition.spans import spans
from prism.plan import Plan


@lru_cache(maxsize=1024)
def sizes_of(plan: Plan, length: int) -> tuple[int, ...]:
    """Return by rank how many positions a node has.

    Raises:
        RequestError: the length is too short for the nodes.
    """
    return tuple(span.size for span in spans(length, plan.size, plan.shares))


def sent_rows(plan: Plan, length: int) -> list[int]:
    """Return by rank how many rows a node sends in one exchange, for one sample.

    Raises:
        RequestError: the length is too short for the nodes.
    """
    sizes = sizes_of(plan, length)
    return [size if plan.means is None else min(plan.means, size) for size in sizes]


def sources_of(rank: int, plan: Plan, causal: bool) -> list[int]:
    """Return the ranks whose rows a rank attends to: all others, or those before it."""
    others = (other for other in range(plan.size) if other != rank)
    return [other for other in others if other < rank or not causal]
