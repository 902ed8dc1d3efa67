"""What a request wants besides its inputs, and what it got."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prism.output_form import FULL, OutputForm
from prism.plan import Objective
from prism.planner import Decision
from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants besides its inputs.

    Attributes:
        plan: how to run it; None = the server's choice.
        objective: what to choose a plan for; None = the server's.
        deadline_s: longest time the answer is worth waiting for; None = as long as it takes.
        output: the form of the answer.
        client: whom it comes from, for fairness.
    """

    plan: str | None = None
    objective: Objective | None = None
    deadline_s: float | None = None
    output: OutputForm = FULL
    client: str = ""


@dataclass(frozen=True, slots=True)
class Answered:
    """What a request got.

    Attributes:
        output: the rows of this request only, as a call of the model gives them.
        record: what the batch that it was part of cost.
        decision: how its plan was chosen; None when the request named it.
        queue_s: from the request's arrival to the start of its batch.
        rows: of that batch.
    """

    output: Any
    record: RunRecord
    decision: Decision | None
    queue_s: float
    rows: int
