"""The choice: the cheapest plan that may be used, and for every other plan why not.

Three promises hold whatever the map says: a plan with a dead node is never chosen, a lossy plan
only with leave, and no plan that by its own prediction costs more than `local`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from prism.errors import InputError
from prism.plan import Objective, Plan
from prism.planner.cost import Cost
from prism.planner.cost_model import CostModel, LeftOut, Option
from prism.record import LinkState

DEFAULT_MARGIN = 0.05
_CHOICES_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan that could run, what it is predicted to cost, and what became of it.

    `accuracy_drop` is 0 for exact plans and None where nobody measured it. `extrapolated` tells
    that what the objective minimises lies beyond the measured batch sizes or lengths.
    """

    plan: Plan
    predicted_s: float
    compute_s: float
    staging_s: float
    comm_s: float
    input_s: float
    output_s: float
    other_s: float
    energy_j: float | None
    accuracy_drop: float | None
    allowed: bool
    reason: str
    extrapolated: bool

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; the plan as its text."""
        return {**asdict(self), "plan": str(self.plan)}


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan to run and the whole field it was chosen from, cheapest first."""

    choice: Plan
    predicted_s: float
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; plans as their text."""
        return {
            "choice": str(self.choice),
            "predicted_s": self.predicted_s,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "left_out": [entry._asdict() for entry in self.left_out],
        }


class _Entry(NamedTuple):
    """A candidate in the making; `value` is what the objective minimises, None if unknown."""

    plan: Plan
    cost: Cost
    total_s: float
    value: float | None
    drop: float | None
    obstacle: str

    @property
    def rank(self) -> tuple[float, int]:
        """Cheapest first, then the fewest nodes."""
        return (float("inf") if self.value is None else self.value, self.plan.size)


def decide(
    model: CostModel,
    batch: int,
    length: int,
    link: LinkState,
    *,
    alive: Sequence[str] = (),
    objective: Objective | None = None,
    allow: Iterable[Plan] | None = None,
    current: Plan | None = None,
    margin: float = DEFAULT_MARGIN,
) -> Decision:
    """Choose the plan for one batch.

    Args:
        model: of the cluster's map.
        batch: rows.
        length: positions per row.
        link: as it is now.
        alive: nodes that answer, in the cluster's order; empty = all of the map.
        objective: what to minimise and the accuracy it may cost; None = latency, exact.
        allow: choose among these plans and `local` only, and use them even if they are lossy.
        current: the plan in use; kept unless another gains more than `margin`, or `local` is
            better at all.
        margin: smallest relative gain worth a switch.

    Raises:
        InputError: a value is impossible, or the objective needs energy and the map has none.
        PlanError: a node alive is not in the map.
    """
    if batch < 1 or length < 1:
        raise InputError(f"batch and length must be at least 1, not {batch} and {length}")
    if not 0.0 <= margin < 1.0:
        raise InputError(f"margin must lie in 0..1 (0.05 = 5 %), not {margin}")
    names = tuple(alive) or tuple(node.name for node in model.map.nodes)
    objective = objective or Objective()
    allowed = None if allow is None else tuple(allow)
    # A split solved for the link of a moment ago may no longer be among the plans by itself.
    held = (current,) if current else ()
    also = (*(allowed or ()), *held)
    options, left_out = model.options(names, batch, length, link, also)
    gate = _Gate(objective, allowed)
    entries = [gate.enter(option) for option in options]
    local = entries[0]
    if local.value is None:
        raise InputError(
            f"the map has no energy of local, so {objective.metric} cannot be compared; "
            f"profile with a meter or choose latency"
        )
    chosen = _choose(entries, local, current, margin)
    verdict = _Verdict(str(chosen.plan), chosen.rank[0], objective.metric, margin)
    candidates = tuple(_candidate(entry, verdict) for entry in sorted(entries, key=_rank))
    return Decision(chosen.plan, chosen.total_s, candidates, left_out)


class _Gate:
    """Says of each plan what it is worth to an objective and whether it may be used."""

    def __init__(self, objective: Objective, allowed: tuple[Plan, ...] | None) -> None:
        self._objective = objective
        self._allowed = allowed

    def enter(self, option: Option) -> _Entry:
        plan, cost, drop = option
        total_s = cost.total_s
        value: float | None = total_s
        if self._objective.metric != "latency":
            weight = total_s if self._objective.metric == "edp" else 1.0
            value = None if cost.energy_j is None else cost.energy_j * weight
        obstacle = self._obstacle(plan, drop)
        if not obstacle and value is None:
            obstacle = f"no energy measured, and the objective is {self._objective.metric}"
        return _Entry(plan, cost, total_s, value, drop, obstacle)

    def _obstacle(self, plan: Plan, drop: float | None) -> str:
        """Return why a plan may not be used, or nothing."""
        if plan.strategy == "local" and not plan.nodes:
            return ""
        if self._allowed is not None:
            named = any(_names(entry, plan) for entry in self._allowed)
            return "" if named else "not among the plans allowed"
        budget = self._objective.max_accuracy_drop
        if plan.exact:
            return ""
        if budget == 0:
            return "lossy, and only exact plans may be used"
        if drop is None:
            return "lossy, and its accuracy was never measured; run `prism evaluate`"
        if drop > budget:
            return f"loses {drop:.4f} of accuracy, more than the {budget:g} allowed"
        return ""


def _names(entry: Plan, plan: Plan) -> bool:
    """Whether a plan in an allow list means `plan`; counted nodes are whichever are alive."""
    return entry == plan or (entry.count > 0 and entry.shape == plan.shape)


def _rank(entry: _Entry) -> tuple[float, int]:
    return entry.rank


def _choose(
    entries: Sequence[_Entry], local: _Entry, current: Plan | None, margin: float
) -> _Entry:
    usable = [entry for entry in entries if not entry.obstacle]
    best = min(usable, key=_rank)
    held = next((entry for entry in usable if entry.plan == current), None)
    if held is None or held.rank[0] > local.rank[0]:
        return best
    return best if best.rank[0] < held.rank[0] * (1.0 - margin) else held


class _Verdict(NamedTuple):
    """Says in words why a plan that may be used was chosen or not."""

    choice: str
    least: float
    metric: str
    margin: float

    def on(self, plan: str, value: float) -> str:
        if plan == self.choice:
            return f"chosen for its predicted {self.metric}"
        if value < self.least:
            return f"better, but by less than the {self.margin:.0%} that a switch must gain"
        if value == self.least:
            return f"no better than {self.choice}"
        return f"{value / self.least - 1:.0%} more {self.metric} than {self.choice}"


def _candidate(entry: _Entry, verdict: _Verdict) -> Candidate:
    cost = entry.cost
    return Candidate(
        entry.plan,
        entry.total_s,
        *cost[:6],
        cost.energy_j,
        entry.drop,
        not entry.obstacle,
        entry.obstacle or verdict.on(str(entry.plan), entry.rank[0]),
        cost.extrapolated or (verdict.metric != "latency" and cost.energy_extrapolated),
    )


class Planner:
    """Decides request after request and holds on to a plan until another is clearly better.

    What it holds on to is kept by batch size, length, objective and leave: each has its own best.
    """

    def __init__(self, model: CostModel, margin: float = DEFAULT_MARGIN) -> None:
        self.model = model
        self._margin = margin
        self._held: OrderedDict[Any, Plan] = OrderedDict()

    def decide(
        self,
        batch: int,
        length: int,
        link: LinkState,
        *,
        alive: Sequence[str] = (),
        objective: Objective | None = None,
        allow: Iterable[Plan] | None = None,
    ) -> Decision:
        """Choose like the function `decide`, with the last choice for such a request as current."""
        allowed = None if allow is None else tuple(allow)
        key = (batch, length, objective, allowed)
        decision = decide(
            self.model,
            batch,
            length,
            link,
            alive=alive,
            objective=objective,
            allow=allowed,
            current=self._held.pop(key, None),
            margin=self._margin,
        )
        self._held[key] = decision.choice
        if len(self._held) > _CHOICES_KEPT:
            self._held.popitem(last=False)
        return decision
