"""Whose turn it is, when several contenders are measured side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

Contender = TypeVar("Contender")


def take_turns(contenders: Sequence[Contender], rounds: int) -> Iterator[tuple[Contender, ...]]:
    """Yield the order of every round; the first of a round is the last of the next one.

    Contenders that alternate share whatever else the machine does meanwhile. The order moves on so
    that nobody always comes first: the first after a pause finds cold caches.

    Args:
        contenders: in the order of the first round; none, no rounds.
        rounds: how many.
    """
    for number in range(rounds if contenders else 0):
        first = number % len(contenders)
        yield (*contenders[first:], *contenders[:first])
