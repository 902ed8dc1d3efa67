"""What a map covers: which plans can be predicted on given nodes, how, and why the others cannot.

Measured are the shapes in the map; they hold for other nodes of the same hardware too. Derived are
plans that split positions otherwise than a measured one, plans at another precision (`precisions`),
and plans whose nodes each run the whole model on rows of their own, from what each node does alone
at the plan's precision. Where an equal split by rows was
measured too, what it took longer than derived is what nodes cost each other (one memory, one power
supply, one medium), and holds for all splits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import NamedTuple

from prism.errors import MapError, PlanError
from prism.perfmap import Accuracy, PerformanceMap
from prism.plan import PRECISIONS, Plan, Precision
from prism.planner.alone import hardware_of, nodes_alone
from prism.planner.answers import WHOLE, Wanted
from prism.planner.compression import Compressions
from prism.planner.cost import PlanCost
from prism.planner.links import Links
from prism.planner.parts import Cost
from prism.planner.position_split import PositionSplit
from prism.planner.precisions import known_plans, precisions_of
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
        precisions: at which the first node was measured alone.
        by_shape: the measured plans, then those derived from them at other precisions.
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
        self.precisions = precisions_of(perf)
        self.by_shape: Mapping[str, PlanCost] = {
            shape: PlanCost(
                known.entries, perf.model, perf.link, perf.payload, wanted, known.derived
            )
            for shape, known in known_plans(perf).items()
        }
        self.hardware = hardware_of(perf)
        alone = {each: nodes_alone(perf, self.by_shape, each) for each in PRECISIONS}
        payload = wanted.payload(perf.payload, perf.model)
        self._rows = {each: RowSplit(self.first, alone[each], payload) for each in PRECISIONS}
        self._positions = {
            each: PositionSplit(
                perf.model, perf.link, perf.payload, partial(self.alone_s, each), wanted
            )
            for each in PRECISIONS
        }
        whole = {each: RowSplit(self.first, alone[each], perf.payload) for each in PRECISIONS}
        self._together = self._costs_together(whole)
        self.compressions = Compressions(perf.accuracy)

    def rows(self, precision: Precision) -> RowSplit:
        """Return what predicts rows on nodes known alone at a precision."""
        return self._rows[precision]

    def positions(self, plan: Plan) -> PositionSplit:
        """Return what predicts other splits by positions than a measured one."""
        return self._positions[plan.precision]

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
        from_rows = strategy.whole_rows and self.rows(plan.precision).covers(nodes)
        if measured and from_rows and (strategy.divides_rows or measured.derived):
            measured = None
        if not measured and not from_rows:
            return LeftOut(str(plan), self._not_measured(plan))
        return Prediction(plan, nodes, strategy.rows(plan, batch), measured)

    def _not_measured(self, plan: Plan) -> str:
        what = "each of its nodes alone" if strategy_of(plan).whole_rows else "it on such nodes"
        if plan.precision in self.precisions:
            return f"the map has not measured {what}"
        return (
            f"the map has not measured {what} in {plan.precision}; "
            f"`prism profile MODEL --precisions float32,{plan.precision}` does"
        )

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
        return plan.exchanges and overlapped and self.rows(plan.precision).covers(nodes)

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
            if same_split(plan, prediction.measured.plan):
                return base
            setting = Setting.of(nodes, batch, length, links, slowdown)
            return self.positions(plan).cost(plan, prediction.measured, base, setting)
        cost = self.rows(plan.precision).cost(nodes, prediction.rows, length, links, slowdown)
        factor = self.factor_together(plan, len(prediction.occupied))
        return cost._replace(compute_s=cost.compute_s * factor)

    def longer_stalls_s(self, plan: Plan, nodes: tuple[str, ...], batch: int, length: int) -> float:
        """Return how much longer rank 0 stalls than in the measured split, over the map's link."""
        found = self.prediction(plan, nodes, batch, length)
        if isinstance(found, LeftOut) or not found.measured:
            return 0.0
        links = Links(self._map.link.state())
        as_measured = found.measured.at(batch, length, links.default)
        return self.cost(found, batch, length, links, {}).comm_s - as_measured.comm_s

    def alone_s(self, precision: Precision, name: str, batch: int, length: int) -> float:
        """Return how long a node computes alone."""
        return self.rows(precision).work(name, batch, length).compute_s

    def _costs_together(
        self, whole: Mapping[Precision, RowSplit]
    ) -> dict[tuple[Precision, int], float]:
        """Return, by precision and number of nodes, how much slower measured splits were.

        Compared with those derived.

        Args:
            whole: by precision, derives splits whose outputs are whole, as those measured were.
        """
        links = Links(self._map.link.state())
        names = tuple(self.hardware)
        factors = {}
        for shape, entries in self._map.by_shape.items():
            plan = Plan.parse(shape)
            strategy, nodes = strategy_of(plan), plan.place(names)
            split = whole[plan.precision]
            if not strategy.divides_rows or plan.shares or not split.covers(nodes):
                continue
            ratios = [
                entry.total_s.median
                / split.cost(
                    nodes, strategy.rows(plan, entry.batch), entry.length, links, {}
                ).total_s
                for entry in entries
            ]
            factors[plan.precision, plan.size] = max(1.0, median(ratios))
        return factors

    def factor_together(self, plan: Plan, busy: int) -> float:
        """Return by how much `busy` nodes slow each other; as in float32 if nobody measured it."""
        if not strategy_of(plan).divides_rows:
            return 1.0
        in_float32 = self._together.get(("float32", busy), 1.0)
        return self._together.get((plan.precision, busy), in_float32)


def same_split(plan: Plan, other: Plan) -> bool:
    """Whether two plans differ in the names of their nodes only."""
    return plan.shape == other.shape
