"""What lossy plans lose, as measured: which plans a measurement covers, and whether it is too much.

Answers depend on what is exchanged, not on who exchanges it: the number of nodes, the grouping, the
means, the lag, the wire, how the positions are split, and the precision of the computation. A
measurement holds for every plan that agrees in all of these, whatever the names of its nodes, and
for requests no longer than what was measured: as many means of more positions lose more.

Plans that exchange nothing compute whole rows as one node does. At one precision a single
measurement counts for all of them: how many rows share the scale of an 8-bit product differs from
request to request anyway. Sequence plans need their own: what means and a precision lose
does not add up, and even full exchange lets 8-bit products see other rows together.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from prism.perfmap import Accuracy
from prism.plan import Objective, Plan

# Splits count as one where no node's part differs by more than this, of all positions: four of a
# ViT-B/16's 197.
SPLIT_TOLERANCE = 0.02
_ROUNDING = 1e-9


class Compressions:
    """The accuracy table of a map, asked by plan."""

    def __init__(self, entries: Iterable[Accuracy]) -> None:
        self._entries = defaultdict[Plan, list[tuple[tuple[float, ...], Accuracy]]](list)
        for entry in entries:
            plan = Plan.parse(entry.plan)
            self._entries[_apart_from_split(plan)].append((_parts(plan), entry))

    def covering(self, plan: Plan, length: int) -> Accuracy | None:
        """Return what was measured of a plan's compression, None where nobody measured it.

        Args:
            plan: lossy.
            length: positions per sample of the request.

        Of several splits within the tolerance the nearest counts, and of equally near ones the one
        that may lose most. Beyond the tolerance nothing is assumed of another split.
        """
        parts = _parts(plan)
        near = [
            (distance, -entry.drop_upper, index, entry)
            for index, (others, entry) in enumerate(self._entries.get(_apart_from_split(plan), ()))
            if (distance := _distance(parts, others)) <= SPLIT_TOLERANCE + _ROUNDING
            and (entry.longest is None or length <= entry.longest)
        ]
        return min(near)[-1] if near else None

    def splits(self, plan: Plan) -> tuple[tuple[float, ...], ...]:
        """Return the shares with which a plan's compression was measured, equal ones empty."""
        found = self._entries.get(_apart_from_split(plan), ())
        return tuple(Plan.parse(entry.plan).shares for _, entry in found)


def loss_obstacle(plan: Plan, accuracy: Accuracy | None, objective: Objective) -> str:
    """Return why a lossy plan may not be used for an objective, and what to do; or nothing.

    Args:
        plan: that loses something.
        accuracy: what was measured of it; None = nothing.
        objective: says how much may be lost, and whether intervals count.
    """
    budget = objective.max_accuracy_drop
    if budget == 0:
        return "lossy, and only exact plans may be used; --max-accuracy-drop allows a loss"
    if accuracy is None:
        split = " with this split of positions" if plan.exchanges and plan.shares else ""
        return (
            f"lossy, and its accuracy was never measured{split} on inputs as long as these; run "
            f"`prism evaluate MODEL DATA --map MAP`, which measures every plan of the map"
        )
    counted = accuracy.drop if objective.point_estimate else accuracy.drop_upper
    if counted <= budget:
        return ""
    if accuracy.drop > budget:
        compared = "the measured value"
        if counted > accuracy.drop:
            compared = f"the upper end of its 95 % interval, {counted:.4f}"
        return (
            f"loses {accuracy.drop:.4f} of {accuracy.metric}, more than the {budget:g} allowed "
            f"(compared: {compared}); only a larger --max-accuracy-drop allows it"
        )
    return (
        f"may lose {counted:.4f} of {accuracy.metric}, more than the {budget:g} allowed (compared: "
        f"the upper end of the 95 % interval around {accuracy.drop:.4f}); measure more samples "
        f"with `prism evaluate MODEL DATA --map MAP`, or let --point-estimate compare the "
        f"measured value"
    )


def loss_told(plan: Plan, accuracy: Accuracy | None) -> dict[str, Any]:
    """Return what a `Candidate` tells of a plan's answers, by the names of its fields."""
    if plan.exact:
        return dict.fromkeys(("accuracy_drop", "accuracy_drop_low", "accuracy_drop_high"), 0.0)
    if accuracy is None:
        return {"accuracy_drop": None}
    return {
        "accuracy_drop": accuracy.drop,
        "accuracy_drop_low": accuracy.drop_low,
        "accuracy_drop_high": accuracy.drop_high,
        "accuracy_metric": accuracy.metric,
    }


def _apart_from_split(plan: Plan) -> Plan:
    if not plan.exchanges:
        return Plan(precision=plan.precision)  # the same answer wherever it runs
    return replace(plan, nodes=(), count=plan.size, shares=())


def _parts(plan: Plan) -> tuple[float, ...]:
    """Return every node's part of the positions, 1 in all; one part where nothing is exchanged."""
    if not plan.exchanges:
        return (1.0,)
    shares = plan.shares or (1.0,) * plan.size
    return tuple(share / sum(shares) for share in shares)


def _distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Return by how much the parts of one node differ at most, of as many nodes."""
    return max(abs(mine - theirs) for mine, theirs in zip(one, other, strict=True))
