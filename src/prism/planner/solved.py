"""Splits solved for the request, the links and the nodes of the moment, so that all end together.

Rows are divided as finely as they come. Positions are divided in steps, and otherwise than measured
only for a gain that is no rounding; lossy plans only as somebody has measured their accuracy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

from prism.plan import Plan, Precision
from prism.planner.coverage import Coverage, Prediction
from prism.planner.links import Links
from prism.planner.position_split import with_shares
from prism.planner.setting import Setting, coarse
from prism.planner.strategies import strategy_of

# Part of the predicted time that another split of the positions must gain to be considered.
_LEAST_GAIN = 0.02
_KEPT = 512


class SolvedSplits:
    """Finds the splits that end first; the same for the same question.

    Args:
        coverage: of the map.
    """

    def __init__(self, coverage: Coverage) -> None:
        self._coverage = coverage
        self._positions = lru_cache(maxsize=_KEPT)(self._find_positions)

    def by_rows(
        self,
        precision: Precision,
        names: Sequence[str],
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> Plan | None:
        """Return the split by rows that ends first, unless a counted equal split does the same.

        All rows at one node other than the first are its `local`.
        """
        split = self._coverage.rows(precision)
        usable = [name for name in names if split.covers((name,))]
        if len(usable) < 2:
            return None
        counts = split.solve(usable, batch, length, links, slowdown)
        shares = {name: count for name, count in zip(usable, counts, strict=True) if count}
        if len(shares) < 2:
            (name,) = shares
            alone = Plan("local", (name,), precision=precision)
            return None if name == self._coverage.first else alone
        in_order = tuple(shares) == tuple(names[: len(shares)])
        equal = Plan("batch", nodes=tuple(shares), precision=precision)
        if in_order:
            equal = replace(equal, nodes=(), count=len(shares))
        if strategy_of(equal).rows(equal, batch) == tuple(shares.values()):
            return None if in_order else equal
        return with_shares(equal, tuple(map(float, shares.values())))

    def by_positions(
        self,
        predictions: Iterable[Prediction],
        batch: int,
        length: int,
        links: Links,
        slowdown: Mapping[str, float],
    ) -> Iterator[Plan]:
        """Yield measured plans with other shares, where these make them clearly faster.

        Args:
            predictions: of plans as measured.
            batch: rows.
            length: positions per row.
            links: from the first node to its helpers.
            slowdown: by node, how many times as long as measured computation takes now.
        """
        size = round(coarse(length))
        for each in predictions:
            if each.measured and size >= each.plan.size and self._may_differ(each.plan, each.nodes):
                setting = Setting.of(each.nodes, batch, size, links, slowdown)
                otherwise = self._positions(each.plan, setting)
                if otherwise != each.plan:
                    yield otherwise

    def _may_differ(self, plan: Plan, nodes: Sequence[str]) -> bool:
        known = plan.exact or self._coverage.compressions.splits(plan)
        return bool(known) and self._coverage.may_split_otherwise(plan, nodes)

    def _find_positions(self, plan: Plan, setting: Setting) -> Plan:
        """Return a measured plan with the shares that end first; as it is if they gain little."""
        measured = self._coverage.measured(plan, setting.nodes)
        assert measured is not None, plan
        known = None if plan.exact else self._coverage.compressions.splits(plan)
        found = self._coverage.positions(plan).solve(measured, setting, known)
        return with_shares(plan, found.shares) if found.gain >= _LEAST_GAIN else plan
