"""How busy the cluster is: what a plan waits for before it starts, and whom it keeps waiting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from prism.errors import InputError


@dataclass(frozen=True, slots=True)
class Load:
    """The work already accepted.

    Attributes:
        free_in_s: by node, seconds until its work is done; a node that is missing is free now.
        waiting: requests that wait for their nodes, this one not counted.
    """

    free_in_s: Mapping[str, float] = field(default_factory=dict, hash=False)
    waiting: int = 0

    def __post_init__(self) -> None:
        if self.waiting < 0:
            raise InputError(f"waiting counts requests, so it is at least 0, not {self.waiting}")
        for name, seconds in self.free_in_s.items():
            if not 0 <= seconds < math.inf:
                raise InputError(f"{name} is free in a time of 0 or more, not {seconds} s")

    def wait_s(self, nodes: Iterable[str]) -> float:
        """Return how long a plan waits until all of its nodes are free."""
        return max((self.free_in_s.get(name, 0.0) for name in nodes), default=0.0)

    def delay_s(self, node_seconds: float, alive: int) -> float:
        """Return how much later all those who wait are done, if a plan takes `node_seconds`.

        The nodes alive share the queue: each second taken of one delays every request that waits
        by its share.
        """
        return self.waiting * node_seconds / alive
