"""Every plan that a map can predict on the nodes alive, measured or derived, and its cost.

And the inverse: what a run that cost something else says about the link and the nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from prism.errors import PlanError
from prism.perfmap import Accuracy, PerformanceMap
from prism.plan import PRECISIONS, Plan
from prism.planner.answers import WHOLE, Wanted
from prism.planner.coverage import Coverage, LeftOut, Prediction
from prism.planner.expected import ExpectedCompute
from prism.planner.link_estimate import LinkSample
from prism.planner.links import AnyLinks, Links
from prism.planner.parts import Cost
from prism.planner.solved import SolvedSplits
from prism.planner.ways import way_samples
from prism.record import RunRecord

_KEPT = 256
_AS_MEASURED: Mapping[str, float] = {}


class Option(NamedTuple):
    """A plan that could run.

    Attributes:
        plan: counted or named.
        nodes: on which it would run, rank 0 first.
        occupied: those of them that have something to compute.
        cost: of one batch.
        accuracy: what was measured of its answers; None if exact or unmeasured.
    """

    plan: Plan
    nodes: tuple[str, ...]
    occupied: tuple[str, ...]
    cost: Cost
    accuracy: Accuracy | None


class _Predictions(NamedTuple):
    found: tuple[Prediction, ...]
    left_out: tuple[LeftOut, ...]


class CostModel:
    """Predicts what plans cost, from one map.

    Attributes:
        map: of which.
        first: its first node.
        precisions: at which that was measured alone.
    """

    def __init__(self, perf: PerformanceMap, wanted: Wanted = WHOLE) -> None:
        """Prepare a map for many predictions.

        Args:
            perf: the map.
            wanted: the form of output that requests want.

        Raises:
            MapError: nobody measured `local`, with which every other plan is compared.
        """
        self.map = perf
        self._coverage = Coverage(perf, wanted)
        self._expected = ExpectedCompute(self._coverage)
        self._solved = SolvedSplits(self._coverage)
        self.first = self._coverage.first
        self.precisions = self._coverage.precisions
        self._names = tuple(node.name for node in perf.nodes)
        self._lasting = lru_cache(maxsize=_KEPT)(self._find_lasting)

    def predict(
        self,
        plan: Plan,
        batch: int,
        length: int,
        link: AnyLinks,
        slowdown: Mapping[str, float] | None = None,
    ) -> Cost:
        """Return the cost of a plan on nodes of the map.

        Args:
            plan: counted or named.
            batch: rows.
            length: positions per row.
            link: one for all helpers, or one per helper (the map's for one that is missing).
            slowdown: by node, how many times as long as measured computation takes now.

        Raises:
            PlanError: the plan is not covered; says why.
        """
        prediction = self._coverage.prediction(plan, self._names, batch, length)
        if isinstance(prediction, LeftOut):
            raise PlanError(f"{plan} cannot be predicted: {prediction.reason}")
        links = Links.of(link, self.map.link.state())
        return self._coverage.cost(prediction, batch, length, links, slowdown or _AS_MEASURED)

    def references(self, names: Sequence[str]) -> tuple[Plan, ...]:
        """Return the plans of one node with which all others are compared.

        `local` on the first node; while it is away, each node left alone.
        """
        if self.first in names:
            return (Plan(),)
        return tuple(Plan("local", (name,)) for name in names)

    def options(
        self,
        names: Sequence[str],
        batch: int,
        length: int,
        link: AnyLinks,
        also: Iterable[Plan] = (),
        slowdown: Mapping[str, float] | None = None,
    ) -> tuple[list[Option], tuple[LeftOut, ...]]:
        """Return the plans to choose from for one batch, `references` first, and those left out.

        Args:
            names: nodes alive, in the cluster's order.
            batch: rows.
            length: positions per row.
            link: decides how many rows and positions are worth sending; as in `predict`.
            also: plans that a caller names, covered or not.
            slowdown: as in `predict`.

        Raises:
            PlanError: the first node is alive, but named after another, or a node is not in the
                map.
        """
        names, slowdown = tuple(names), slowdown or _AS_MEASURED
        links = Links.of(link, self.map.link.state())
        # Beyond one position per node the length decides nothing, so texts share what is found.
        lasting = self._lasting(names, batch, min(length, len(names)))
        now = batch, length, links, slowdown
        rows = [self._solved.by_rows(each, names, *now) for each in self.precisions]
        positions = self._solved.by_positions(lasting.found, *now)
        known = frozenset(prediction.plan for prediction in lasting.found)
        extra = self._sift([*also, *filter(None, rows), *positions], names, batch, length, known)
        options = [
            Option(
                each.plan,
                each.nodes,
                each.occupied,
                self._coverage.cost(each, batch, length, links, slowdown),
                self._coverage.accuracy(each.plan, length),
            )
            for each in lasting.found + extra.found
        ]
        return options, tuple(dict.fromkeys((*lasting.left_out, *extra.left_out)))

    def link_samples(self, record: RunRecord, links: Links) -> Mapping[str, LinkSample]:
        """Return by helper what a run says about its link: one sample, the best there is.

        The ways of inputs and outputs come first; the stalls of exchanges where these were short.

        Args:
            record: rank 0's.
            links: as believed.
        """
        if record.outcome != "ok":
            return {}
        ways = way_samples(record, self.first, links)
        stalls = self.link_sample(record)
        if stalls is None:
            return ways
        helpers = [name for name in (record.node, *record.per_node) if name != self.first]
        if not stalls.at_most:  # else what was hidden was hidden for all of them
            helpers = sorted(helpers, key=lambda name: links.to(name).bandwidth_bps)[:1]
        timed = {name: sample for name, sample in ways.items() if not sample.at_most}
        return {**ways, **dict.fromkeys(helpers, stalls), **timed}

    def link_sample(self, record: RunRecord) -> LinkSample | None:
        """Return what the stalls of a run say about the link, or None if they say nothing.

        A stall for a helper that computed longer than its share is not the link's. A run that
        failed, exchanged nothing, or has a plan that the map lacks, says nothing.
        """
        nodes = (record.node, *record.per_node)
        measured = self._coverage.by_shape.get(record.plan.shape)
        late_s = self._expected.late_s(record)
        if measured is None:
            measured = self._coverage.measured(record.plan, nodes)
            late_s += self._coverage.longer_stalls_s(
                record.plan, nodes, record.batch, record.length
            )
        if measured is None or record.outcome != "ok":
            return None
        if measured.work(record.batch, record.length).derived:
            return None  # how long it stalls was never measured
        return measured.link_sample(record, late_s)

    def timeout_sample(
        self,
        plan: Plan,
        batch: int,
        length: int,
        waited_s: float,
        slowdown: float = 1.0,
    ) -> LinkSample | None:
        """Return what a run says about the link that was given up after `waited_s`.

        A lower bound of the time that its bytes take, for `LinkEstimate.with_run`. None if the plan
        was not measured, uses no link, or should have taken that long anyway (`slowdown` is that of
        its slowest node).
        """
        measured = self._coverage.by_shape.get(plan.shape)
        if measured is None:
            return None
        return measured.timeout_sample(batch, length, waited_s, slowdown)

    def compute_samples(self, record: RunRecord) -> Mapping[str, float]:
        """Return, by node that took part, measured over expected time of computation.

        For `ComputeEstimate.with_run`. Empty for a run that failed; a node is absent if the map
        does not tell what to expect of it.
        """
        return self._expected.samples(record)

    def _find_lasting(self, names: tuple[str, ...], batch: int, length: int) -> _Predictions:
        """Return what the nodes allow whatever the link, equal splits by rows included."""
        if self.first in names[1:]:
            raise PlanError(
                f"the first node alive must be the map's first {self.first}, not {names[0]}"
            )
        unknown = [name for name in names if name not in self._names]
        if unknown:
            raise PlanError(
                f"{', '.join(unknown)} is not in the map, which has {', '.join(self._names)}; "
                f"run `prism profile` with it"
            )
        measured = (cost.plan for cost in self._coverage.by_shape.values())
        splits = (
            Plan("batch", count=size, precision=precision)
            for precision in self.precisions
            for size in range(2, len(names) + 1)
        )
        return self._sift((*self.references(names), *measured, *splits), names, batch, length)

    def _sift(
        self,
        plans: Iterable[Plan],
        names: tuple[str, ...],
        batch: int,
        length: int,
        known: frozenset[Plan] = frozenset(),
    ) -> _Predictions:
        """Tell the plans that can be predicted from those that cannot, without those known."""
        # Named or not, `local` on the first node alive is one plan.
        instead: dict[Plan, Plan] = {}
        for precision in PRECISIONS:
            counted = Plan(precision=precision)
            named = replace(counted, nodes=names[:1])
            instead |= {named: counted} if self.first in names else {counted: named}
        found, left_out = [], []
        for plan in dict.fromkeys(instead.get(plan, plan) for plan in plans):
            if plan in known:
                continue
            prediction = self._prediction(plan, names, batch, length)
            if isinstance(prediction, LeftOut):
                left_out.append(prediction)
            else:
                found.append(prediction)
        return _Predictions(tuple(found), tuple(left_out))

    def _prediction(
        self, plan: Plan, names: tuple[str, ...], batch: int, length: int
    ) -> Prediction | LeftOut:
        if plan.exchanges and self.first not in names:
            return LeftOut(str(plan), f"measured with {self.first} as rank 0, which is away")
        return self._coverage.prediction(plan, names, batch, length)
