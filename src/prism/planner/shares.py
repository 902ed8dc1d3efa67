"""Rows of a batch over nodes that all hold the whole model: predicted from what each does alone.

No measurement of the split itself is needed. Each node's time is that of the same number of rows
alone, plus, for a helper, its rows over the first node's uplink and the outputs back; the request
takes as long as the slowest. The helpers are sent to at once and share the uplink evenly, until
those with fewer rows have theirs; each has its own link behind it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import permutations

from prism.partition.own_input import rows_ahead
from prism.perfmap import Payload
from prism.planner.cost import PlanCost
from prism.planner.links import Links
from prism.planner.parts import Cost, slowed
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


def improved(
    split: tuple[int, ...], ends_s: Callable[[tuple[int, ...]], float], least: int = 0
) -> tuple[int, ...]:
    """Return a split after moving units between nodes, one by one, for as long as one move gains.

    Args:
        split: units per node.
        ends_s: when all is done with a split.
        least: units that every node keeps.
    """
    while (found := min((split, *_neighbours(split, least)), key=ends_s)) != split:
        split = found
    return split


def _neighbours(split: tuple[int, ...], least: int) -> Iterator[tuple[int, ...]]:
    for giver, taker in permutations(range(len(split)), 2):
        if split[giver] > least:
            moved = list(split)
            moved[giver] -= 1
            moved[taker] += 1
            yield tuple(moved)


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
        sent = [count for name, count in busy if name != self._first]
        costs = []
        for name, count in busy:
            cost = self.work(name, count, length, slowdown.get(name, 1.0))
            if name != self._first:
                passing = sum(min(count, others) for others in sent)
                hidden_s = self.work(name, 1, length, slowdown.get(name, 1.0)).total_s
                cost = self._moved(cost, passing, len(sent), hidden_s, length, links.to(name))
            costs.append(cost)
        energies = [cost.energy_j for cost in costs if cost.energy_j is not None]
        return max(costs, key=lambda cost: cost.total_s)._replace(
            energy_j=sum(energies) if len(energies) == len(costs) else None,
            extrapolated=any(cost.extrapolated for cost in costs),
            derived=any(cost.derived for cost in costs),
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
        using = tuple(names)
        while True:
            counts = self._handed_out(using, batch, length, links, slowdown)
            rows = dict(zip(using, counts, strict=True))
            # A helper without rows takes nothing of the uplink from the others.
            used = tuple(name for name in using if rows[name] or name == self._first)
            if used == using:
                break
            using = used

        def ends_s(split: tuple[int, ...]) -> float:
            return self.cost(names, split, length, links, slowdown).total_s

        return improved(tuple(rows.get(name, 0) for name in names), ends_s)

    def _handed_out(
        self,
        names: Sequence[str],
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> tuple[int, ...]:
        """Return rows per node as if each helper had its part of the uplink to the end."""
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
        self,
        work: Cost,
        passing: int,
        helpers: int,
        hidden_s: float,
        length: int,
        link: LinkState,
    ) -> Cost:
        """Return a helper's work with the transfers of its rows and of their outputs.

        Args:
            work: without them.
            passing: rows that cross the uplink until its own have all arrived.
            helpers: nodes that share the uplink.
            hidden_s: what its first row takes alone, behind which the others can arrive.
            length: positions per row.
            link: to the helper.
        """
        row_bytes = self._payload.inputs(1, length)
        row_s = 8 * row_bytes / link.bandwidth_bps
        begins_s = row_s * min(passing, helpers * rows_ahead(passing, row_bytes))
        input_s = link.latency_s + begins_s + max(0.0, row_s * passing - begins_s - hidden_s)
        return work._replace(
            input_s=input_s,
            output_s=link.latency_s
            + 8 * self._payload.outputs(passing, length) / link.bandwidth_bps,
        )
