"""What a decision consists of: the plan to run, and the whole field it was chosen from."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from prism.plan import Plan
from prism.planner.coverage import LeftOut


@dataclass(frozen=True, slots=True)
class Candidate:
    """One plan that could run, what it is predicted to cost, and what became of it.

    Attributes:
        plan: counted or named.
        nodes: on which it would run, rank 0 first.
        predicted_s: from its start to its end, the sum of the parts that follow.
        energy_j: None where nobody measured it.
        accuracy_drop: 0 for exact plans, None where nobody measured it.
        allowed: whether it may be used.
        reason: why it was chosen or not.
        extrapolated: whether what the objective minimises lies beyond the measured batch sizes or
            lengths.
        derived: whether its cost was not measured at its precision, but follows from the same in
            float32 and from one node at both.
        queue_s: time until its nodes are free, before it starts.
        accuracy_drop_low, accuracy_drop_high: 95 % interval of the drop; None where nobody gave
            one. A budget is compared with the upper end, or without an interval with the drop.
        accuracy_metric: what the drop is a drop of; None for exact plans and unmeasured ones.
    """

    plan: Plan
    nodes: tuple[str, ...]
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
    derived: bool = False
    queue_s: float = 0.0
    accuracy_drop_low: float | None = None
    accuracy_drop_high: float | None = None
    accuracy_metric: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; the plan as its text."""
        return {**asdict(self), "plan": str(self.plan), "nodes": list(self.nodes)}


@dataclass(frozen=True, slots=True)
class Decision:
    """The plan to run and the whole field it was chosen from, cheapest first.

    `nodes` is where a counted plan was placed, rank 0 first. `predicted_s` counts from the start of
    the run, once these nodes are free.
    """

    choice: Plan
    nodes: tuple[str, ...]
    predicted_s: float
    candidates: tuple[Candidate, ...]
    left_out: tuple[LeftOut, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types; plans as their text."""
        return {
            "choice": str(self.choice),
            "nodes": list(self.nodes),
            "predicted_s": self.predicted_s,
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "left_out": [entry._asdict() for entry in self.left_out],
        }
