"""How long each node of a run should have computed, and what a run that took longer tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prism.plan import Plan
from prism.planner.coverage import Coverage, same_split
from prism.planner.strategies import strategy_of
from prism.record import RunRecord


class ExpectedCompute:
    """What a map expects nodes to compute; nothing where it has derived figures only.

    Args:
        coverage: of the map.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage

    def samples(self, record: RunRecord) -> Mapping[str, float]:
        """Return, by node that took part, measured over expected time; see `CostModel`."""
        if record.outcome != "ok":
            return {}
        computed_s = _computed_s(record)
        expected_s = self._of(record)
        return {name: computed_s[name] / seconds for name, seconds in expected_s.items() if seconds}

    def late_s(self, record: RunRecord) -> float:
        """Return how much longer a helper computed than rank 0, beyond what the map expects.

        What the map expects is part of its stalls already: a plan whose parts are uneven.
        """
        computed_s = _computed_s(record)
        expected_s = self._of(record)
        own_s = expected_s.get(record.node, 0.0)
        return max(
            (
                max(0.0, computed_s[name] - record.compute_s) - max(0.0, seconds - own_s)
                for name, seconds in expected_s.items()
            ),
            default=0.0,
        )

    def _of(self, record: RunRecord) -> dict[str, float]:
        nodes = tuple(_computed_s(record))
        return self.seconds(record.plan, nodes, record.batch, record.length)

    def seconds(
        self, plan: Plan, nodes: Sequence[str], batch: int, length: int
    ) -> dict[str, float]:
        """Return how long each node should compute; a node that was not measured so is absent.

        Args:
            plan: that ran.
            nodes: that took part, rank 0 first.
            batch: rows.
            length: positions per row.
        """
        strategy = strategy_of(plan)
        if not strategy.whole_rows:
            return self._in_step(plan, nodes, batch, length)
        rows = [count for count in strategy.rows(plan, batch) if count]
        factor = self._coverage.factor_together(plan, len(rows))
        split = self._coverage.rows(plan.precision)
        works = {
            name: split.work(name, count, length)
            for name, count in zip(nodes, rows, strict=False)
            if split.covers((name,))
        }
        return {name: factor * work.compute_s for name, work in works.items() if not work.derived}

    def _in_step(
        self, plan: Plan, nodes: Sequence[str], batch: int, length: int
    ) -> dict[str, float]:
        """Return the expected computation of a plan that exchanges.

        Measured was rank 0. A helper's differs as its share of the work does, the blocks that it
        computes, and its speed alone.
        """
        hardware = list(self._coverage.hardware.values())
        measured = self._coverage.measured(plan, nodes)
        if not measured or self._coverage.hardware.get(nodes[0]) != hardware[0]:
            return {}
        own = measured.work(batch, length)
        if own.derived:
            return {}
        own_s, positions = own.compute_s, self._coverage.positions(plan)
        if not same_split(plan, measured.plan):
            computed_s = positions.compute_s(plan, measured, nodes, batch, length)
            return dict(zip(nodes, computed_s, strict=True))
        shares = plan.shares or (1.0,) * plan.size
        blocks = positions.blocks_computed(measured, length)
        alone_s = {
            name: share * count * self._coverage.alone_s(plan.precision, name, batch, length)
            for name, share, count in zip(nodes, shares, blocks, strict=False)
            if self._coverage.rows(plan.precision).covers((name,))
        }
        expected_s = {nodes[0]: own_s}
        if alone_s.get(nodes[0]):
            expected_s |= {
                name: own_s * seconds / alone_s[nodes[0]] for name, seconds in alone_s.items()
            }
        return expected_s


def _computed_s(record: RunRecord) -> dict[str, float]:
    """Return the time of computation by node that took part, rank 0 first."""
    others = {name: other.compute_s for name, other in record.per_node.items()}
    return {record.node: record.compute_s, **others}
