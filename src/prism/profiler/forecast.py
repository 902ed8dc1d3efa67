"""How long a pass will take, from the passes so far and the planner's account of the link.

Rougher than a prediction from a finished map, and possible much earlier: after the first pass of
`local` every other pass can be estimated. A plan that was never run takes what its slowest node
needs alone for its part of the work, and all that it moves over the link, nothing hidden. From its
first pass on, that estimate is corrected by how far it was off at the nearest size.
"""

from __future__ import annotations

import math
from collections import defaultdict
from statistics import median_low

from prism.perfmap import MapLink, Surface
from prism.plan import Plan, Precision
from prism.planner.answers import WHOLE
from prism.planner.strategies import strategy_of
from prism.planner.traffic import exchange_bytes, exchange_count, transfer_s
from prism.profiler.points import Point
from prism.profiler.target import ProfileTarget

_LEAST_COMPUTED = 0.1


class Forecast:
    """Estimates passes of one model on one cluster.

    Attributes:
        link: as measured; None = one node only, nothing moves.
    """

    def __init__(self, target: ProfileTarget) -> None:
        self.link: MapLink | None = None
        self._model = target.model
        self._payload = target.payload
        self._kinds = {node.name: node.kind for node in target.identity.nodes}
        self._names = tuple(self._kinds)
        self._passes_s = defaultdict[Plan, dict[tuple[int, int], list[float]]](dict)
        self._surfaces: dict[Plan, Surface] = {}

    def note(self, point: Point, seconds: float) -> None:
        """Take note of what a pass took."""
        plan, *size = point
        self._passes_s[plan].setdefault((size[0], size[1]), []).append(seconds)
        self._surfaces.pop(plan, None)

    def pass_s(self, point: Point) -> float:
        """Return how long one pass of a point will take; 0 before `local` has run once."""
        if not self._passes_s[Plan()]:
            return 0.0
        plan, *size = point
        known = self._passes_s[plan]
        times_s = known.get((size[0], size[1]))
        if times_s:
            return median_low(times_s)  # the first may have found everything cold
        if plan == Plan(precision=plan.precision) or not known:
            return self._derived_s(point)
        nearest = min(known, key=lambda other: abs(math.log(_ratio(size, other))))
        there_s = self._derived_s(Point(plan, *nearest))
        return self._derived_s(point) * median_low(known[nearest]) / there_s

    def _derived_s(self, point: Point) -> float:
        """Return what a plan takes if its parts take what they take alone."""
        plan, batch, length = point
        strategy, nodes = strategy_of(plan), plan.place(self._names)
        parts = [1.0] * len(nodes)
        if not strategy.whole_rows:
            shares = plan.shares or (1.0,) * plan.size
            parts = [share / sum(shares) for share in shares]
        rows = strategy.rows(plan, batch)
        alone_s = [
            part * self._alone_s(name, plan.precision, count, length)
            for name, part, count in zip(nodes, parts, rows, strict=True)
            if count
        ]
        return max(alone_s) + self._moving_s(plan, batch, length)

    def _moving_s(self, plan: Plan, batch: int, length: int) -> float:
        """Return how long inputs, exchanges and outputs take on the link, one after the other."""
        link, strategy = self.link, strategy_of(plan)
        if link is None or plan == Plan(precision=plan.precision):
            return 0.0
        nbytes = strategy.input_bytes(plan, self._model, self._payload, batch, length)
        nbytes += strategy.output_bytes(plan, self._model, self._payload, WHOLE, batch, length)
        seconds = 8 * nbytes / link.bandwidth_bps + 2 * (link.latency_s or 0.0)
        if plan.exchanges:
            size = exchange_bytes(plan, self._model, batch, length, link.shared)
            exchanges = exchange_count(plan, self._model, link)
            seconds += exchanges * transfer_s(size, link, link.state())
        return seconds

    def _alone_s(self, name: str, precision: Precision, batch: int, length: int) -> float:
        """Return what a node needs alone, transfers apart.

        If it has not run at the precision, what a node of its kind needs, else what it needs itself
        in float32, else what the first does.
        """
        alike = [each for each in self._names if self._kinds[each] == self._kinds[name]]
        plans = [self._alone(each, precision) for each in (name, *alike)]
        plans.append(self._alone(name, "float32"))
        plan = next((each for each in plans if self._passes_s[each]), Plan())
        if plan not in self._surfaces:
            known = self._passes_s[plan]
            self._surfaces[plan] = Surface({size: median_low(known[size]) for size in known})
        pass_s = self._surfaces[plan].at(batch, length)
        # A link that was faster meanwhile leaves no time; some of a pass is computation anyhow.
        return max(_LEAST_COMPUTED * pass_s, pass_s - self._moving_s(plan, batch, length))

    def _alone(self, name: str, precision: Precision) -> Plan:
        return Plan("local", (name,) if name != self._names[0] else (), precision=precision)


def _ratio(size: list[int], other: tuple[int, int]) -> float:
    return size[0] * size[1] / (other[0] * other[1])
