"""What the costs of a plan depend on that differs from strategy to strategy.

One object per strategy, looked up by `plan.strategy`: nothing else in the planner asks which
strategy a plan has.
"""

from __future__ import annotations

from collections.abc import Mapping

from prism.partition.spans import rows
from prism.perfmap import Payload
from prism.plan import ModelShape, Plan
from prism.planner.answers import Wanted
from prism.planner.traffic import helper_input_bytes, output_row_bytes


class Strategy:
    """How inputs leave the first node, outputs come back, and rows lie on the nodes.

    Attributes:
        whole_rows: whether every node runs the whole model on its own rows. What such a plan costs
            follows from what each node does alone; other plans must be measured.
        divides_rows: whether the rows of one batch lie on several nodes. Then a measurement says
            nothing by itself about batch sizes whose rows divide otherwise.
    """

    whole_rows = True
    divides_rows = False

    def helper_part(self, plan: Plan) -> float:
        """Return the part of rows or positions that other nodes than the first compute, 0..1."""
        if plan.shares:
            return 1.0 - plan.shares[0] / sum(plan.shares)
        return 1.0 - 1.0 / plan.size

    def input_bytes(
        self, plan: Plan, model: ModelShape, payload: Payload, batch: int, length: int
    ) -> float:
        """Return the bytes of input that leave the first node."""
        return self.helper_part(plan) * payload.inputs(batch, length)

    def output_bytes(
        self,
        plan: Plan,
        model: ModelShape,
        payload: Payload,
        wanted: Wanted,
        batch: int,
        length: int,
    ) -> float:
        """Return the bytes of output that helpers send back, in the form wanted of it."""
        return self.helper_part(plan) * wanted.payload(payload, model).outputs(batch, length)

    def rows(self, plan: Plan, batch: int) -> tuple[int, ...]:
        """Return how many rows each node of the plan is given."""
        raise NotImplementedError


class _Local(Strategy):
    """One node computes everything; its input crosses the link unless it is the first."""

    def helper_part(self, plan: Plan) -> float:
        return 1.0 if plan.nodes else 0.0

    def rows(self, plan: Plan, batch: int) -> tuple[int, ...]:
        return (batch,)


class _Batch(Strategy):
    """Rows are divided over nodes that all hold the whole model."""

    divides_rows = True

    def rows(self, plan: Plan, batch: int) -> tuple[int, ...]:
        return tuple(span.size for span in rows(batch, plan.size, plan.shares))


class _Sequence(Strategy):
    """Positions are divided: every node has all rows, and the input in the smallest form."""

    whole_rows = False

    def input_bytes(
        self, plan: Plan, model: ModelShape, payload: Payload, batch: int, length: int
    ) -> float:
        return sum(helper_input_bytes(plan, model, payload, batch, length))

    def output_bytes(
        self,
        plan: Plan,
        model: ModelShape,
        payload: Payload,
        wanted: Wanted,
        batch: int,
        length: int,
    ) -> float:
        if not wanted.gathers_rows:  # each helper pools its own
            return (plan.size - 1) * wanted.payload(payload, model).outputs(batch, length)
        # At most every helper's positions come back; less is measured where the model needs less.
        return sum(output_row_bytes(plan, model, batch, length))

    def rows(self, plan: Plan, batch: int) -> tuple[int, ...]:
        return (batch,) * plan.size


_STRATEGIES: Mapping[str, Strategy] = {
    "local": _Local(),
    "batch": _Batch(),
    "sequence": _Sequence(),
}


def strategy_of(plan: Plan) -> Strategy:
    """Return what knows how the costs of a plan are made up."""
    return _STRATEGIES[plan.strategy]
