"""Every plan that a map can predict on the nodes alive, measured or derived, and its cost.

Measured are the shapes in the map; they hold for other nodes of the same hardware too. Derived are
splits by rows, from each node's measurements alone: in equal parts over the first nodes, and in
the parts that end first. Where an equal split was measured too, what it took longer than derived is
what nodes cost each other (one memory, one power supply, one medium), and holds for all splits: a
measured split says nothing by itself about batch sizes whose rows divide otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from statistics import median
from typing import NamedTuple

from prism.errors import MapError, PlanError
from prism.partition.spans import rows
from prism.perfmap import PerformanceMap
from prism.plan import Plan
from prism.planner.cost import Cost, PlanCost
from prism.planner.links import LinkSample
from prism.planner.shares import RowSplit
from prism.record import LinkState, RunRecord

_KEPT = 256


class LeftOut(NamedTuple):
    """A plan that cannot be predicted here and now, and why."""

    plan: str
    reason: str


class Option(NamedTuple):
    """A plan that could run, its cost, and its accuracy drop: 0 if exact, None if unmeasured."""

    plan: Plan
    cost: Cost
    accuracy_drop: float | None


class _Prediction(NamedTuple):
    """How to predict a plan: as measured, or from its rows per node."""

    plan: Plan
    nodes: tuple[str, ...]
    measured: PlanCost | None
    rows: tuple[int, ...]
    accuracy_drop: float | None


class _Predictions(NamedTuple):
    found: tuple[_Prediction, ...]
    left_out: tuple[LeftOut, ...]


class CostModel:
    """Predicts what plans cost, from one map."""

    def __init__(self, perf: PerformanceMap) -> None:
        """Prepare a map for many predictions.

        Raises:
            MapError: nobody measured `local`, with which every other plan is compared.
        """
        if "local" not in perf.by_shape:
            raise MapError("the map has no measurement of local; run `prism profile` again")
        self.map = perf
        self.first = perf.nodes[0].name
        self._by_shape: Mapping[str, PlanCost] = {
            shape: PlanCost(entries, perf.model, perf.link, perf.payload)
            for shape, entries in perf.by_shape.items()
        }
        self._hardware = {node.name: (node.hardware, node.threads) for node in perf.nodes}
        self._split = RowSplit(self.first, self._nodes_alone(), perf.payload)
        self._together = self._costs_together()
        self._rows = lru_cache(maxsize=_KEPT)(_rows)
        self._ways = lru_cache(maxsize=_KEPT)(self._find_ways)

    def predict(self, plan: Plan, batch: int, length: int, link: LinkState) -> Cost:
        """Return the cost of a plan on nodes of the map.

        Raises:
            PlanError: the plan is not covered; says why.
        """
        way = self._way(plan, tuple(self._hardware), batch, length)
        if isinstance(way, LeftOut):
            raise PlanError(f"{plan} cannot be predicted: {way.reason}")
        return self._cost(way, batch, length, link)

    def options(
        self,
        names: Sequence[str],
        batch: int,
        length: int,
        link: LinkState,
        also: Iterable[Plan] = (),
    ) -> tuple[list[Option], tuple[LeftOut, ...]]:
        """Return the plans to choose from for one batch, `local` first, and those left out.

        Args:
            names: nodes alive, in the cluster's order.
            batch: rows.
            length: positions per row.
            link: decides how many rows are worth sending.
            also: plans that a caller names, covered or not.

        Raises:
            PlanError: the first node is not the map's, or a node is not in the map.
        """
        names = tuple(names)
        # Beyond one position per node the length decides nothing, so texts share their ways.
        ways = self._ways(names, batch, min(length, len(names)))
        solved = self._solved(names, batch, length, link)
        more = [*also, solved] if solved else also
        known = {way.plan for way in ways.found}
        extra = self._sift((plan for plan in more if plan not in known), names, batch, length)
        options = [
            Option(way.plan, self._cost(way, batch, length, link), way.accuracy_drop)
            for way in ways.found + extra.found
        ]
        return options, tuple(dict.fromkeys((*ways.left_out, *extra.left_out)))

    def link_sample(self, record: RunRecord) -> LinkSample | None:
        """Return what a run says about the link, or None if it exchanged nothing known here."""
        measured = self._by_shape.get(record.plan.shape)
        return measured.link_sample(record) if measured else None

    def _nodes_alone(self) -> dict[str, PlanCost]:
        alone = {}
        for name, hardware in self._hardware.items():
            own = self._by_shape.get(f"local@{name}")
            if name == self.first:
                alone[name] = self._by_shape["local"]
            elif own:
                alone[name] = own
            elif hardware == self._hardware[self.first]:
                alone[name] = self._by_shape["local"]
        return alone

    def _costs_together(self) -> dict[int, float]:
        """Return, by number of nodes, how much slower a measured split was than a derived one."""
        link = self.map.link.state()
        names = tuple(self._hardware)
        factors = {}
        for shape, entries in self.map.by_shape.items():
            plan = Plan.parse(shape)
            nodes = plan.place(names)
            if plan.strategy != "batch" or plan.shares or not self._split.covers(nodes):
                continue
            ratios = [
                entry.total_s.median
                / self._split.cost(nodes, _rows(plan, entry.batch), entry.length, link).total_s
                for entry in entries
            ]
            factors[plan.size] = max(1.0, median(ratios))
        return factors

    def _cost(self, way: _Prediction, batch: int, length: int, link: LinkState) -> Cost:
        if way.measured:
            return way.measured.at(batch, length, link)
        cost = self._split.cost(way.nodes, way.rows, length, link)
        busy = sum(count > 0 for count in way.rows)
        factor = self._together.get(busy, 1.0) if way.plan.strategy == "batch" else 1.0
        return cost._replace(compute_s=cost.compute_s * factor)

    def _find_ways(self, names: tuple[str, ...], batch: int, length: int) -> _Predictions:
        """Return what the nodes allow whatever the link, equal splits by rows included."""
        if names[:1] != (self.first,):
            raise PlanError(
                f"the first node alive must be the map's first {self.first}, "
                f"not {', '.join(names[:1]) or 'none'}"
            )
        unknown = [name for name in names if name not in self._hardware]
        if unknown:
            raise PlanError(
                f"{', '.join(unknown)} is not in the map, which has {', '.join(self._hardware)}; "
                f"run `prism profile` with it"
            )
        measured = (cost.plan for cost in self._by_shape.values())
        splits = (Plan("batch", count=size) for size in range(2, len(names) + 1))
        return self._sift((Plan(), *measured, *splits), names, batch, length)

    def _sift(
        self, plans: Iterable[Plan], names: tuple[str, ...], batch: int, length: int
    ) -> _Predictions:
        """Tell the plans that can be predicted from those that cannot."""
        found, left_out = [], []
        # Named or not, `local` on the first node is one plan.
        here = Plan("local", (self.first,))
        for plan in dict.fromkeys(Plan() if plan == here else plan for plan in plans):
            way = self._way(plan, names, batch, length)
            if isinstance(way, LeftOut):
                left_out.append(way)
            else:
                found.append(way)
        return _Predictions(tuple(found), tuple(left_out))

    def _way(
        self, plan: Plan, names: tuple[str, ...], batch: int, length: int
    ) -> _Prediction | LeftOut:
        """Return how to predict a plan, or why nobody can."""
        try:
            nodes = plan.place(names)
        except PlanError as error:
            return LeftOut(str(plan), str(error))
        accuracy = self.map.accuracy_by_shape.get(plan.shape)
        drop = 0.0 if plan.exact else accuracy.drop if accuracy else None
        measured = self._measured(plan, nodes)
        if plan.strategy == "sequence" and length < plan.size:
            return LeftOut(str(plan), f"{length} positions are too few for {plan.size} nodes")
        if plan.strategy == "batch" and batch < plan.size:
            return LeftOut(str(plan), f"a batch of {batch} has too few rows for {plan.size} nodes")
        derived = plan.strategy == "batch" and self._split.covers(nodes)
        if measured and not derived:
            return _Prediction(plan, nodes, measured, (), drop)
        if plan.strategy == "sequence":
            return LeftOut(str(plan), "the map has not measured it on such nodes")
        if not self._split.covers(nodes):
            return LeftOut(str(plan), "the map has not measured each of its nodes alone")
        counts = (batch,) if plan.strategy == "local" else self._rows(plan, batch)
        return _Prediction(plan, nodes, None, counts, drop)

    def _measured(self, plan: Plan, nodes: Sequence[str]) -> PlanCost | None:
        cost = self._by_shape.get(plan.shape)
        if plan.strategy == "local" or cost is None:
            return cost
        hardware = [self._hardware.get(name) for name in nodes]
        return cost if hardware == list(self._hardware.values())[: plan.size] else None

    def _solved(
        self, names: Sequence[str], batch: int, length: int, link: LinkState
    ) -> Plan | None:
        """Return the split by rows that ends first, unless an equal split does the same."""
        usable = [name for name in names if self._split.covers((name,))]
        counts = self._split.solve(usable, batch, length, link)
        shares = {name: count for name, count in zip(usable, counts, strict=True) if count}
        if len(shares) < 2:
            return None
        weights = tuple(map(float, shares.values()))
        plan = Plan("batch", tuple(shares), shares=weights)
        if tuple(shares) == tuple(names[: len(shares)]):
            plan = Plan("batch", count=len(shares), shares=weights)
        equal = self._rows(replace(plan, shares=()), batch)
        return None if equal == tuple(shares.values()) else plan


def _rows(plan: Plan, batch: int) -> tuple[int, ...]:
    return tuple(span.size for span in rows(batch, plan.size, plan.shares))
