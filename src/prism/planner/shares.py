"""Rows of a batch over nodes that all hold the whole model: predicted from what each does alone.

No measurement of the split itself is needed. Each node's time is that of the same number of rows
alone, plus, for a helper, its rows over the first node's uplink and the outputs back; the request
takes as long as the slowest. The helpers are sent to at once and share the uplink evenly; each has
its own link behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence

from prism.perfmap import Payload
from prism.planner.cost import Cost, PlanCost, slowed
from prism.planner.links import Links
from prism.record import LinkState


def solve_shares(costs: Sequence[Callable[[int], float]], rows: int) -> tuple[int, ...]:
    """Give each node whole rows such that the slowest node is done as early as possible.

    Handing out row after row, each to the node that would then be done first, is optimal as long
    as no node's time falls with more rows.

    Args:
        costs: per node, the seconds it needs for a number of rows of at least 1.
        rows: to hand out.

    Returns:
        Rows per node, adding up to `rows`; ties go to the earlier node.
    """
    taken = [0] * len(costs)
    waiting = [(cost(1), node) for node, cost in enumerate(costs)]
    heapq.heapify(waiting)
    for _ in range(rows):
        _, node = waiting[0]
        taken[node] += 1
        heapq.heapreplace(waiting, (costs[node](taken[node] + 1), node))
    return tuple(taken)


class RowSplit:
    """Predicts and solves splits of a batch by rows."""

    def __init__(self, first: str, alone: Mapping[str, PlanCost], payload: Payload) -> None:
        """Take, by node, the cost of running alone there, as measured or on equal hardware."""
        self._first = first
        self._alone = alone
        self._payload = payload

    def covers(self, names: Sequence[str]) -> bool:
        """Whether every one of these nodes has been measured alone."""
        return all(name in self._alone for name in names)

    def work(self, name: str, rows: int, length: int, slowdown: float = 1.0) -> Cost:
        """Return what `rows` rows cost on one covered node, without their transfers."""
        return slowed(self._alone[name].work(rows, length), slowdown)

    def cost(
        self,
        names: Sequence[str],
        rows: Sequence[int],
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> Cost:
        """Return the cost of a split: the slowest node's parts, the energy of all.

        Args:
            names: nodes, all covered.
            rows: per node; zero leaves the node out.
            length: positions per row.
            links: from the first node to its helpers.
            slowdown: by node, how many times as long computation takes; 1 for a missing one.
        """
        busy = [(name, count) for name, count in zip(names, rows, strict=True) if count]
        helpers = sum(name != self._first for name, _ in busy)
        costs = []
        for name, count in busy:
            work = self.work(name, count, length, slowdown.get(name, 1.0))
            costs.append(self._moved(work, name, count, length, links.to(name), helpers))
        energies = [cost.energy_j for cost in costs if cost.energy_j is not None]
        return max(costs, key=lambda cost: cost.total_s)._replace(
            energy_j=sum(energies) if len(energies) == len(costs) else None,
            extrapolated=any(cost.extrapolated for cost in costs),
            energy_extrapolated=any(cost.energy_extrapolated for cost in costs),
        )

    def solve(
        self,
        names: Sequence[str],
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> tuple[int, ...]:
        """Return the rows per node that end first; a node too slow to help gets none."""
        helpers = sum(name != self._first for name in names)
        row_bits = 8 * (self._payload.inputs(1, length) + self._payload.outputs(1, length))

        def seconds(name: str) -> Callable[[int], float]:
            factor, link = slowdown.get(name, 1.0), links.to(name)
            if name == self._first:
                return lambda rows: self.work(name, rows, length, factor).total_s
            row_s, there_and_back_s = row_bits * helpers / link.bandwidth_bps, 2 * link.latency_s
            return lambda rows: (
                self.work(name, rows, length, factor).total_s + there_and_back_s + row_s * rows
            )

        return solve_shares([seconds(name) for name in names], batch)

    def _moved(
        self, work: Cost, name: str, rows: int, length: int, link: LinkState, helpers: int
    ) -> Cost:
        """Return a node's work with the transfers of its rows and of their outputs."""
        if name == self._first:
            return work
        rate_bps = link.bandwidth_bps / helpers
        return work._replace(
            input_s=link.latency_s + 8 * self._payload.inputs(rows, length) / rate_bps,
            output_s=link.latency_s + 8 * self._payload.outputs(rows, length) / rate_bps,
        )
