"""The choice: the cheapest plan that may be used, and for every other plan why not.

Three promises hold whatever the map says: a plan with a dead node is never chosen, a lossy plan
only with leave, and no plan that by its own prediction costs more than `local`, waiting included.
Only where `local` has just failed, and another plan may be used, the last one is void.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

from prism.errors import InputError, PlanError
from prism.perfmap import Accuracy
from prism.plan import Objective, Plan, Precision
from prism.planner.compression import loss_obstacle, loss_told
from prism.planner.cost_model import CostModel, Option
from prism.planner.decision import Candidate, Decision
from prism.planner.links import AnyLinks
from prism.planner.load import Load
from prism.planner.parts import Cost

DEFAULT_MARGIN = 0.05
_CHOICES_KEPT = 1024
_DERIVED = "; its time was not measured, but derived from float32 and one node at this precision"


Lacking: TypeAlias = Mapping[str, Mapping[Precision, str]]
"""By node, the precisions at which it does not have the model now, each with the reason."""


class _Entry(NamedTuple):
    """A candidate in the making; `value` is what the objective minimises, None if unknown."""

    plan: Plan
    nodes: tuple[str, ...]
    cost: Cost
    queue_s: float
    value: float | None
    accuracy: Accuracy | None
    obstacle: str

    @property
    def rank(self) -> tuple[float, int]:
        """Cheapest first, then the fewest nodes."""
        return (float("inf") if self.value is None else self.value, self.plan.size)


def decide(
    model: CostModel,
    batch: int,
    length: int,
    link: AnyLinks,
    *,
    alive: Sequence[str] = (),
    objective: Objective | None = None,
    allow: Iterable[Plan] | None = None,
    current: Plan | None = None,
    margin: float = DEFAULT_MARGIN,
    load: Load | None = None,
    slowdown: Mapping[str, float] | None = None,
    backoff: Mapping[str, str] | None = None,
    lacking: Lacking | None = None,
) -> Decision:
    """Choose the plan for one batch.

    Args:
        model: of the cluster's map.
        batch: rows.
        length: positions per row.
        link: as it is now: one for all helpers, or one per helper (the map's for a missing one).
        alive: nodes that answer, in the cluster's order; empty = all of the map. While the map's
            first is away, the others are compared with the quickest of them alone.
        objective: what to minimise and the accuracy it may cost; None = latency, exact.
        allow: choose among these plans and `local` only, and use them even if they are lossy.
        current: the plan in use; kept unless another gains more than `margin`, or `local` is
            better at all.
        margin: smallest relative gain worth a switch.
        load: work already accepted; None = none, and nothing will wait.
        slowdown: by node, how many times as long as measured computation takes now.
        backoff: why plans are left alone for now, by shape (`Plan.shape`) or by node.
        lacking: by node, at which precisions it does not have the model now, and why.

    Raises:
        InputError: a value is impossible, or the objective needs energy and the map has none.
        PlanError: a node alive is not in the map, or no node alive was measured alone.
    """
    if batch < 1 or length < 1:
        raise InputError(f"batch and length must be at least 1, not {batch} and {length}")
    if not 0.0 <= margin < 1.0:
        raise InputError(f"margin must lie in 0..1 (0.05 = 5 %), not {margin}")
    names = tuple(alive) or tuple(node.name for node in model.map.nodes)
    allowed = None if allow is None else tuple(allow)
    # A split solved for the link of a moment ago may no longer be among the plans by itself.
    also = [*(allowed or ()), *([current] if current else ())]
    if load:  # while the first node is busy, any other one may be quicker
        also.extend(
            Plan("local", (name,), precision=precision)
            for name in names
            for precision in model.precisions
        )
    options, left_out = model.options(names, batch, length, link, also, slowdown)
    references = model.references(names)
    objective = _comparable(objective or Objective(), options, model.first in names)
    gate = _Gate(
        objective, allowed, references, load or Load(), len(names), backoff or {}, lacking or {}
    )
    entries = [gate.enter(option) for option in options]
    reference = min((each for each in entries if each.plan in references), key=_rank, default=None)
    if reference is None:
        raise PlanError(
            f"the map has measured none of {', '.join(names)} alone, so nothing can be chosen "
            f"while {model.first} is away"
        )
    entries = _with_one_usable(entries, reference)
    chosen = _choose(entries, reference, current, margin)
    verdict = _Verdict(str(chosen.plan), chosen.rank[0], objective.metric, margin)
    candidates = tuple(_candidate(entry, verdict) for entry in sorted(entries, key=_rank))
    return Decision(chosen.plan, chosen.nodes, chosen.cost.total_s, candidates, left_out)


def _comparable(objective: Objective, options: Sequence[Option], first_alive: bool) -> Objective:
    """Return the objective; latency instead of energy that nobody measured, if it must be.

    Raises:
        InputError: the energy of `local`, with which all is compared, was not measured.
    """
    if objective.metric == "latency" or not options or options[0].cost.energy_j is not None:
        return objective
    if first_alive:
        raise InputError(
            f"the map has no energy of local, so {objective.metric} cannot be compared; "
            f"profile with a meter or choose latency"
        )
    # An answer is owed even while the first node is away.
    return replace(objective, metric="latency")


class _Gate:
    """Says of each plan what it is worth to an objective and whether it may be used."""

    def __init__(
        self,
        objective: Objective,
        allowed: tuple[Plan, ...] | None,
        references: tuple[Plan, ...],
        load: Load,
        alive: int,
        backoff: Mapping[str, str],
        lacking: Lacking,
    ) -> None:
        self._objective = objective
        self._allowed = allowed
        self._references = references
        self._load = load
        self._alive = alive
        self._backoff = backoff
        self._lacking = lacking

    def enter(self, option: Option) -> _Entry:
        queue_s = self._load.wait_s(option.occupied)
        value = self._value(option, queue_s)
        obstacle = self._obstacle(option)
        if not obstacle and value is None:
            obstacle = f"no energy measured, and the objective is {self._objective.metric}"
        return _Entry(
            option.plan, option.nodes, option.cost, queue_s, value, option.accuracy, obstacle
        )

    def _value(self, option: Option, queue_s: float) -> float | None:
        """Return what the objective minimises: the lower, the better."""
        total_s, energy_j = option.cost.total_s, option.cost.energy_j
        if self._objective.metric == "latency":
            taken_s = total_s * len(option.occupied)
            return queue_s + total_s + self._load.delay_s(taken_s, self._alive)
        if self._objective.metric == "edp" and energy_j is not None:
            return energy_j * (queue_s + total_s)
        return energy_j

    def _obstacle(self, option: Option) -> str:
        """Return why a plan may not be used, or nothing."""
        plan = option.plan
        for key in (plan.shape, *option.nodes):
            if key in self._backoff:
                return self._backoff[key]
        for name in option.nodes:
            if reason := self._lacking.get(name, {}).get(plan.precision):
                return f"{name} has no {plan.precision}: {reason}"
        if plan in self._references:
            return ""
        if self._allowed is not None:
            named = any(_names(entry, plan) for entry in self._allowed)
            return "" if named else "not among the plans allowed"
        return "" if plan.exact else loss_obstacle(plan, option.accuracy, self._objective)


def _names(entry: Plan, plan: Plan) -> bool:
    """Whether a plan in an allow list means `plan`; counted nodes are whichever are alive."""
    return entry == plan or (entry.count > 0 and entry.shape == plan.shape)


def _rank(entry: _Entry) -> tuple[float, int]:
    return entry.rank


def _with_one_usable(entries: list[_Entry], reference: _Entry) -> list[_Entry]:
    """Return the entries; if none may be used, the reference may: a request needs a plan."""
    if not all(entry.obstacle for entry in entries):
        return entries
    return [entry._replace(obstacle="") if entry is reference else entry for entry in entries]


def _choose(
    entries: Sequence[_Entry], reference: _Entry, current: Plan | None, margin: float
) -> _Entry:
    usable = [entry for entry in entries if not entry.obstacle]
    best = min(usable, key=_rank)
    held = next((entry for entry in usable if entry.plan == current), None)
    if held is None or held.rank[0] > reference.rank[0]:
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
        entry.nodes,
        cost.total_s,
        *cost[:6],
        cost.energy_j,
        allowed=not entry.obstacle,
        reason=(entry.obstacle or verdict.on(str(entry.plan), entry.rank[0]))
        + (_DERIVED if cost.derived else ""),
        derived=cost.derived,
        extrapolated=cost.extrapolated
        or (verdict.metric != "latency" and cost.energy_extrapolated),
        queue_s=entry.queue_s,
        **loss_told(entry.plan, entry.accuracy),
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
        link: AnyLinks,
        *,
        alive: Sequence[str] = (),
        objective: Objective | None = None,
        allow: Iterable[Plan] | None = None,
        load: Load | None = None,
        slowdown: Mapping[str, float] | None = None,
        backoff: Mapping[str, str] | None = None,
        lacking: Lacking | None = None,
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
            load=load,
            slowdown=slowdown,
            backoff=backoff,
            lacking=lacking,
        )
        self._held[key] = decision.choice
        if len(self._held) > _CHOICES_KEPT:
            self._held.popitem(last=False)
        return decision
