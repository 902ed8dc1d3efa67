"""Which plans a model is fine-tuned for, and which of them a training step takes.

The sandwich rule (Yu and Huang, 2019): every step takes the largest, here the exact path; the
smallest, the most compressed plan; and one at random. The ends hold what lies between them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from prism.errors import PlanError
from prism.models.families import Family, has_sliding_window
from prism.models.inputs import check_plan_of_family
from prism.models.load import ModelInfo
from prism.plan import WIRE_BYTES, Plan

_NODES = (2, 3, 4)
_RATES = (10, 5)  # positions per mean
_GREATEST_SHARE = 3

EXACT = Plan()


def usual_means(length: int, nodes: int) -> tuple[int, ...]:
    """Return how many means per partition stand for about ten and about five positions each."""
    return tuple(dict.fromkeys(max(1, round(length / rate / nodes)) for rate in _RATES))


def default_plans(family: Family, length: int) -> tuple[Plan, ...]:
    """Return plans worth training for: both groupings, 2 to 4 nodes, compressed to 1/10 and 1/5.

    Args:
        family: lagged plans are left out where it does not define lag.
        length: tokens per sample; means per partition follow from it.
    """
    lags = ("",) if family.rotary else ("", ":lag1")
    plans = (
        Plan.parse(f"seq:{nodes}:{grouping}{means}{lag}:f16")
        for nodes in _NODES
        if length >= nodes
        for means in usual_means(length, nodes)
        for grouping in "CL"
        for lag in lags
    )
    return tuple(plans)


def check_defaults(info: ModelInfo) -> None:
    """Check that there are default plans for a model.

    Raises:
        PlanError: means, which the defaults have, are not defined for it.
    """
    if has_sliding_window(info.config):
        raise PlanError(
            f"{info.source or info.family.name} has sliding-window layers, for which means are not "
            f"defined; name other plans with --plans, such as seq:2:full:f16"
        )


def check_plans(plans: Sequence[Plan], info: ModelInfo) -> None:
    """Check that a model can be fine-tuned for plans.

    Args:
        plans: all of them.
        info: the model.

    Raises:
        PlanError: there are none, one has nothing to train for, or is not defined for the family.
    """
    if not plans:
        raise PlanError("there is no plan to fine-tune for; name at least one, such as seq:2:C10")
    for plan in plans:
        if not plan.compressed:
            reason = "is exact" if plan.exact else "exchanges no means"
            raise PlanError(
                f"{plan} {reason}, there is nothing to fine-tune for it; name plans with means, "
                f"such as seq:2:C10"
            )
        check_plan_of_family(info.family, info.config, plan)


def trained_as(plans: Iterable[Plan]) -> tuple[Plan, ...]:
    """Return what steps compute for plans, each once: in float32, whatever they are measured in."""
    return tuple(dict.fromkeys(replace(plan, precision="float32") for plan in plans))


@dataclass(frozen=True)
class Sandwich:
    """Draws the plans of each training step.

    Attributes:
        plans: what the model is trained for.
        unequal: how often the random plan's partitions are made unequal, 0..1; never where a plan
            has its own shares.
    """

    plans: tuple[Plan, ...]
    unequal: float

    def draw(self, rng: random.Random) -> dict[str, Plan]:
        """Return the plans of one step: the exact path, the smallest and a random one.

        Where the smallest or the random plan is one already there, it is left out.
        """
        drawn = {
            "exact": EXACT,
            "smallest": rng.choice(self.smallest),
            "random": self._unequal(rng.choice(self.plans), rng),
        }
        if drawn["random"] == drawn["smallest"]:
            del drawn["random"]
        return drawn

    @property
    def smallest(self) -> tuple[Plan, ...]:
        """The plans with the fewest bytes per partition; of those the ones on most nodes."""
        least = min(map(_size, self.plans))
        return tuple(plan for plan in self.plans if _size(plan) == least)

    def _unequal(self, plan: Plan, rng: random.Random) -> Plan:
        if plan.shares or rng.random() >= self.unequal:
            return plan
        shares = tuple(float(rng.randint(1, _GREATEST_SHARE)) for _ in range(plan.size))
        return replace(plan, shares=shares)


def _size(plan: Plan) -> tuple[float, int]:
    rows = float("inf") if plan.means is None else plan.means
    return rows * WIRE_BYTES[plan.wire], -plan.size
