"""What a request of the server wants, and what it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prism.output_form import FULL, OutputForm
from prism.plan import Objective
from prism.planner import Decision
from prism.record import RunRecord


@dataclass(frozen=True, slots=True)
class Wish:
    """What a request wants besides the answer to its inputs.

    Attributes:
        plan: text of a plan, or `auto`; None = the planner's where a map is in use, else the first
            node.
        objective: what to choose a plan for; None = as the server was told.
        deadline_s: longest time the answer is worth waiting for, from being accepted; None = as
            long as it takes.
        output: the form of the output.
        client: who asks; the queue is fair between clients.
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
        output: of its own rows, as `model(...)` returns it.
        record: what the batch cost that it was part of.
        decision: how the plan of that batch was chosen; None where it was named.
        queue_s: from being accepted to the start of the computation, for other requests.
        rows: of the batch, this request's among them.
    """

    output: Any
    record: RunRecord
    decision: Decision | None
    queue_s: float
    rows: int
