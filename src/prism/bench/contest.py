"""Adaptive against every fixed plan, and against hindsight, while the link changes.

Owns the arithmetic of the comparison; the demo and the benchmark bring the model, the steps and the
drawing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

from prism.plan import Plan
from prism.profiler.turns import take_turns

if TYPE_CHECKING:
    from prism.api.model import DistributedModel

ADAPTIVE = "adaptive"
ORACLE = "oracle"
# The estimate has noticed a change when it lies this close to the new bandwidth.
_NOTICED = 1.3
_NOTICE_TIMEOUT_S = 10.0


class ChangingLink(Protocol):
    """A link that can be given another shape: a cluster's emulated one, or a real one."""

    def set_link(self, link: str, /) -> None:
        """Change it; a text such as `100mbit,3ms`."""


@dataclass(frozen=True, slots=True)
class Step:
    """A stretch of requests: so many samples each, over such a link."""

    link: str
    bandwidth_bps: float
    batch: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """What happened in one step.

    Attributes:
        step: the step.
        noticed_s: until the estimate had the new bandwidth, with no request running; None = never.
        believed_bps: the estimate when the choice was made.
        choice: the plan adaptive chose, as text.
        predicted_s: by plan, as text, at the estimated link.
        measured_s: by plan, median request time; `adaptive` is adaptive's own requests.
    """

    step: Step
    noticed_s: float | None
    believed_bps: float
    choice: str
    predicted_s: Mapping[str, float]
    measured_s: Mapping[str, float]

    @property
    def best(self) -> str:
        """The fixed plan that was fastest in hindsight."""
        fixed = {plan: seconds for plan, seconds in self.measured_s.items() if plan != ADAPTIVE}
        return min(fixed, key=fixed.__getitem__)

    @property
    def regret(self) -> float:
        """How much longer the chosen plan took than the best one, as a fraction.

        Compares the measured plans with each other: adaptive's own requests run the chosen plan,
        and would add the noise of a second measurement.
        """
        chosen_s = self.measured_s.get(self.choice, self.measured_s[ADAPTIVE])
        return max(0.0, chosen_s / self.measured_s[self.best] - 1.0)

    @property
    def errors(self) -> dict[str, float]:
        """By plan, the relative error of the prediction; negative = too optimistic."""
        return {
            plan: self.predicted_s[plan] / seconds - 1.0
            for plan, seconds in self.measured_s.items()
            if plan in self.predicted_s
        }


def plans_at(plans: Sequence[Plan], batch: int) -> list[Plan]:
    """Return the plans that can serve a batch; one row cannot be split."""
    return [plan for plan in plans if plan.least_batch <= batch]


def run_step(
    network: ChangingLink,
    model: DistributedModel,
    step: Step,
    plans: Sequence[Plan],
    inputs: Mapping[str, Any],
    rounds: int,
    advance: Callable[[], object] = lambda: None,
) -> StepResult:
    """Change the link, let it be noticed, then let all plans and the adaptive choice take turns.

    Args:
        network: what joins the nodes.
        model: loaded on them, with a map.
        step: what to do.
        plans: the fixed plans.
        inputs: one request of the step's batch size.
        rounds: measured requests of each contender.
        advance: called after every round.
    """
    network.set_link(step.link)
    noticed_s = _await_notice(model, step.bandwidth_bps)
    decision = model.decide(**inputs)
    contenders: dict[str, Plan | None] = {str(plan): plan for plan in plans_at(plans, step.batch)}
    contenders[ADAPTIVE] = None
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number, order in enumerate(take_turns(list(contenders), rounds + 1)):
        for name in order:
            model(plan=contenders[name], **inputs)
            assert model.last_record is not None
            if number:  # the first round warms up
                seconds[name].append(model.last_record.total_s)
        advance()
    return StepResult(
        step=step,
        noticed_s=noticed_s,
        believed_bps=model.link.bandwidth_bps,
        choice=decision.choice.shape,
        predicted_s={each.plan.shape: each.predicted_s for each in decision.candidates},
        measured_s={name: median(values) for name, values in seconds.items()},
    )


def totals(results: Sequence[StepResult]) -> dict[str, float]:
    """Return the time of all steps together, one request each, by policy.

    A fixed plan that cannot serve a batch counts as `local` there. `oracle` takes the best plan of
    each step in hindsight.
    """
    plans = dict.fromkeys(plan for result in results for plan in result.measured_s)
    by_policy = {
        plan: sum(result.measured_s.get(plan, result.measured_s["local"]) for result in results)
        for plan in plans
    }
    return {**by_policy, ORACLE: sum(result.measured_s[result.best] for result in results)}


def summary(results: Sequence[StepResult]) -> dict[str, Any]:
    """Return the figures of a contest as plain data."""
    errors = [abs(error) for result in results for error in result.errors.values()]
    noticed = [result.noticed_s for result in results if result.noticed_s is not None]
    return {
        "steps": [
            {
                "link": result.step.link,
                "batch": result.step.batch,
                "choice": result.choice,
                "best": result.best,
                "regret": result.regret,
                "noticed_s": result.noticed_s,
                "believed_bps": result.believed_bps,
                "predicted_s": dict(result.predicted_s),
                "measured_s": dict(result.measured_s),
            }
            for result in results
        ],
        "totals_s": totals(results),
        "median_error": median(errors) if errors else None,
        "median_regret": median(result.regret for result in results),
        "worst_regret": max(result.regret for result in results),
        "noticed_s": median(noticed) if noticed else None,
    }


def _await_notice(model: DistributedModel, bandwidth_bps: float) -> float | None:
    """Wait, without sending a request, until the estimate is near a bandwidth."""
    started_s = time.monotonic()
    while (waited_s := time.monotonic() - started_s) < _NOTICE_TIMEOUT_S:
        ratio = model.link.bandwidth_bps / bandwidth_bps
        if 1 / _NOTICED < ratio < _NOTICED:
            return waited_s
        time.sleep(0.05)
    return None
