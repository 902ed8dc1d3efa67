"""What a map covers: which plans can be predicted on given nodes, how, and why the others cannot.

Measured are the shapes in the map; they hold for other nodes of the same hardware too. Derived are
plans that split positions otherwise than a measured one, and plans whose nodes each run the whole
model on rows of their own, from each node's measurements alone. Where an equal split by rows was
measured too, what it took longer than derived is what nodes cost each other (one memory, one power
supply, one medium), and holds for all splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import NamedTuple

from prism.errors import MapError, PlanError
from prism.perfmap import Accuracy, PerformanceMap
from prism.plan import Plan
from prism.planner.answers import WHOLE, Wanted
from prism.planner.compression import Compressions
from prism.planner.cost import Cost, PlanCost
from prism.planner.links import Links
from prism.planner.position_split import PositionSplit
from prism.planner.setting import Setting
from prism.planner.shares import RowSplit
from prism.planner.strategies import strategy_of


class LeftOut(NamedTuple):
    """A plan that cannot be predicted here and now, and why."""

    plan: str
    reason: str


class Prediction(NamedTuple):
    """How to predict a plan: as measured, or from its rows per node.

    Attributes:
        plan: predicted.
        nodes: on which it is placed, rank 0 first.
        rows: per node; a node without rows takes no part.
        measured: predicts the plan from its own measurements, or from those of another split of
            the positions; None = from its rows.
    """

    plan: Plan
    nodes: tuple[str, ...]
    rows: tuple[int, ...]
    measured: PlanCost | None

    @property
    def occupied(self) -> tuple[str, ...]:
        """The nodes that have something to compute."""
        pairs = zip(self.nodes, self.rows, strict=True)
        return tuple(name for name, count in pairs if count)


class Coverage:
    """Predicts single plans from one map.

    Attributes:
        first: the map's first node, from which all links lead.
        hardware: by node of the map, what tells whether two nodes are alike.
        by_shape: the measured plans.
        split: predicts rows on nodes measured alone.
        positions: predicts other splits by positions than the measured ones.
    """

    def __init__(self, perf: PerformanceMap, wanted: Wanted = WHOLE) -> None:
        """Prepare a map for requests that want outputs in one form.

        Raises:
            MapError: nobody measured `local`, with which every other plan is compared.
        """
        if "local" not in perf.by_shape:
            raise MapError("the map has no measurement of local; run `prism profile` again")
        self._map = perf
        self.first = perf.nodes[0].name
        self.by_shape: Mapping[str, PlanCost] = {
            shape: PlanCost(entries, perf.model, perf.link, perf.payload, wanted)
            for shape, entries in perf.by_shape.items()
        }
        self.hardware = {node.name: (node.hardware, node.threads) for node in perf.nodes}
        alone = self._nodes_alone()
        self.split = RowSplit(self.first, alone, wanted.payload(perf.payload, perf.model))
        self.positions = PositionSplit(perf.model, perf.link, perf.payload, self._alone_s, wanted)
        self._together = self._costs_together(RowSplit(self.first, alone, perf.payload))
        self.compressions = Compressions(perf.accuracy)

    def prediction(
        self, plan: Plan, names: Sequence[str], batch: int, length: int
    ) -> Prediction | LeftOut:
        """Return how to predict a plan on the nodes `names`, or why nobody can."""
        try:
            nodes = plan.place(names)
        except PlanError as error:
            return LeftOut(str(plan), str(error))
        if length < plan.least_length:
            return LeftOut(str(plan), f"{length} positions are too few for {plan.size} nodes")
        if batch < plan.least_batch:
            return LeftOut(str(plan), f"a batch of {batch} has too few rows for {plan.size} nodes")
        strategy = strategy_of(plan)
        measured = self.measured(plan, nodes)
        derived = strategy.whole_rows and self.split.covers(nodes)
        if measured and (derived and strategy.divides_rows):
            measured = None
        if not measured and not derived:
            alone = strategy.whole_rows
            what = "each of its nodes alone" if alone else "it on such nodes"
            return LeftOut(str(plan), f"the map has not measured {what}")
        return Prediction(plan, nodes, strategy.rows(plan, batch), measured)

    def measured(self, plan: Plan, nodes: Sequence[str]) -> PlanCost | None:
        """Return what predicts a plan on such nodes: measured so, or in another split."""
        cost = self.by_shape.get(plan.shape) or self._split_otherwise(plan, nodes)
        if cost is None or not cost.plan.count:
            return cost  # the shape names its node, or is `local`
        hardware = [self.hardware.get(name) for name in nodes]
        return cost if hardware == list(self.hardware.values())[: plan.size] else None

    def may_split_otherwise(self, plan: Plan, nodes: Sequence[str]) -> bool:
        """Whether other shares of the positions than measured can be predicted on some nodes.

        Each must have been measured alone, and exchanges must overlap the computation.
        """
        overlapped = self._map.link.exchange == "overlapped"
        return plan.exchanges and overlapped and self.split.covers(nodes)

    def _split_otherwise(self, plan: Plan, nodes: Sequence[str]) -> PlanCost | None:
        if not self.may_split_otherwise(plan, nodes):
            return None
        alike = replace(plan, nodes=(), count=plan.size, shares=())
        measured = (cost for cost in self.by_shape.values() if cost.plan.exchanges)
        return next((cost for cost in measured if replace(cost.plan, shares=()) == alike), None)

    def accuracy(self, plan: Plan, length: int) -> Accuracy | None:
        """Return what was measured of a plan's answers to such requests; None if exact, or not."""
        return None if plan.exact else self.compressions.covering(plan, length)

    def cost(
        self,
        prediction: Prediction,
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> Cost:
        """Return the cost of a plan for one batch.

        Nodes that exchange wait for each other in every block, so the slowest sets the pace.
        """
        plan, nodes = prediction.plan, prediction.nodes
        if prediction.measured:
            link = links.slowest(name for name in nodes if name != self.first)
            slowest = max(slowdown.get(name, 1.0) for name in nodes)
            base = prediction.measured.at(batch, length, link, slowest)
            if _same_split(plan, prediction.measured.plan):
                return base
            setting = Setting.of(nodes, batch, length, links, slowdown)
            return self.positions.cost(plan, prediction.measured, base, setting)
        cost = self.split.cost(nodes, prediction.rows, length, links, slowdown)
        factor = self._factor_together(plan, len(prediction.occupied))
        return cost._replace(compute_s=cost.compute_s * factor)

    def longer_stalls_s(self, plan: Plan, nodes: tuple[str, ...], batch: int, length: int) -> float:
        """Return how much longer rank 0 stalls than in the measured split, over the map's link."""
        found = self.prediction(plan, nodes, batch, length)
        if isinstance(found, LeftOut) or not found.measured:
            return 0.0
        links = Links(self._map.link.state())
        as_measured = found.measured.at(batch, length, links.default)
        return self.cost(found, batch, length, links, {}).comm_s - as_measured.comm_s

    def expected_compute_s(
        self, plan: Plan, nodes: Sequence[str], batch: int, length: int
    ) -> dict[str, float]:
        """Return how long each node should compute; a node of which the map says nothing is absent.

        Args:
            plan: that ran.
            nodes: that took part, rank 0 first.
            batch: rows.
            length: positions per row.
        """
        strategy = strategy_of(plan)
        if not strategy.whole_rows:
            return self._expected_in_step(plan, nodes, batch, length)
        rows = [count for count in strategy.rows(plan, batch) if count]
        factor = self._factor_together(plan, len(rows))
        return {
            name: factor * self.split.work(name, count, length).compute_s
            for name, count in zip(nodes, rows, strict=False)
            if self.split.covers((name,))
        }

    def _expected_in_step(
        self, plan: Plan, nodes: Sequence[str], batch: int, length: int
    ) -> dict[str, float]:
        """Return the expected computation of a plan that exchanges.

        Measured was rank 0. A helper's differs as its share of the work does, the blocks that it
        computes, and its speed alone.
        """
        hardware = list(self.hardware.values())
        measured = self.measured(plan, nodes)
        if not measured or self.hardware.get(nodes[0]) != hardware[0]:
            return {}
        if not _same_split(plan, measured.plan):
            computed_s = self.positions.compute_s(plan, measured, nodes, batch, length)
            return dict(zip(nodes, computed_s, strict=True))
        own_s = measured.work(batch, length).compute_s
        shares = plan.shares or (1.0,) * plan.size
        blocks = self.positions.blocks_computed(measured, length)
        alone_s = {
            name: share * count * self.split.work(name, batch, length).compute_s
            for name, share, count in zip(nodes, shares, blocks, strict=False)
            if self.split.covers((name,))
        }
        expected_s = {nodes[0]: own_s}
        if alone_s.get(nodes[0]):
            expected_s |= {
                name: own_s * seconds / alone_s[nodes[0]] for name, seconds in alone_s.items()
            }
        return expected_s

    def _alone_s(self, name: str, batch: int, length: int) -> float:
        return self.split.work(name, batch, length).compute_s

    def _nodes_alone(self) -> dict[str, PlanCost]:
        alone = {}
        for name, hardware in self.hardware.items():
            own = self.by_shape.get(f"local@{name}")
            if name == self.first:
                alone[name] = self.by_shape["local"]
            elif own:
                alone[name] = own
            elif hardware == self.hardware[self.first]:
                alone[name] = self.by_shape["local"]
        return alone

    def _costs_together(self, whole: RowSplit) -> dict[int, float]:
        """Return, by number of nodes, how much slower a measured split was than a derived one.

        Args:
            whole: derives splits whose outputs are whole, as those measured were.
        """
        links = Links(self._map.link.state())
        names = tuple(self.hardware)
        factors = {}
        for shape, entries in self._map.by_shape.items():
            plan = Plan.parse(shape)
            strategy, nodes = strategy_of(plan), plan.place(names)
            if not strategy.divides_rows or plan.shares or not self.split.covers(nodes):
                continue
            ratios = [
                entry.total_s.median
                / whole.cost(
                    nodes, strategy.rows(plan, entry.batch), entry.length, links, {}
                ).total_s
                for entry in entries
            ]
            factors[plan.size] = max(1.0, median(ratios))
        return factors

    def _factor_together(self, plan: Plan, busy: int) -> float:
        return self._together.get(busy, 1.0) if strategy_of(plan).divides_rows else 1.0


def _same_split(plan: Plan, other: Plan) -> bool:
    return plan.shape == other.shape
