"""Whether node processes give the answers that the measurement in one process assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from prism.fidelity.answers import comparable_values, compare, read_answers
from prism.fidelity.copies import Copies, answer
from prism.fidelity.samples import Samples
from prism.models.load import LoadedModel
from prism.plan import Plan
from prism.transport.staging import WIRE_DTYPES

# Sums in another order, and values rounded once more than here, relative to the largest value.
_LEAST_TOLERANCE = 1e-3
_ROUNDINGS = 8
_SAME_DIRECTION = 0.999

Run = Callable[[Plan, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Difference:
    """What node processes gave for a plan, beside what this process did.

    Attributes:
        plan: its shape.
        samples: how many were run.
        equal: of those, how many had the same answer.
        largest: the largest difference of any value, relative to the largest value.
        tolerance: what rounding explains.
        agrees: whether the difference is rounding. Rounding may also put a row that is as similar
            to two clusters into the other one; with clusters equal answers will do.
    """

    plan: str
    samples: int
    equal: int
    largest: float
    tolerance: float
    agrees: bool


def compare_distributed(
    copies: Copies, samples: Samples, plans: Sequence[Plan], count: int, run: Run
) -> tuple[Difference, ...]:
    """Run samples on node processes and compare their answers with those of this process.

    Args:
        copies: of the model, at the precisions of the plans.
        samples: the first `count` are run, one by one.
        plans: compared one after the other.
        count: how many samples; more than there are = all.
        run: gives a model's output for a plan and inputs, from node processes.

    Raises:
        RequestError: an answer holds NaN.
        ClusterError: as `run` does.
        UnsupportedPrecision: the model cannot be had at a plan's precision here.
    """
    rows = range(min(count, len(samples)))
    return tuple(_compare(copies, samples, plan, rows, run) for plan in plans)


def _compare(copies: Copies, samples: Samples, plan: Plan, rows: range, run: Run) -> Difference:
    loaded = copies.of(plan)
    in_float32 = replace(plan, precision="float32")
    largest, rounded, equal = 0.0, 0.0, 0
    for row in rows:
        inputs = samples.batch([row], plan.least_length)
        here, there = answer(loaded, plan, inputs), run(plan, inputs)
        largest = max(largest, _difference(loaded, here, there, inputs))
        equal += _same(loaded, here, there, inputs)
        if plan.precision != "float32":
            exact = answer(copies.of(in_float32), in_float32, inputs)
            rounded = max(rounded, _difference(loaded, here, exact, inputs))
    # What a precision rounds here, nodes may round the other way: their sums are ordered otherwise.
    tolerance = max(_tolerance(loaded, plan), 2 * rounded)
    agrees = largest <= tolerance or (plan.grouping == "clusters" and equal == len(rows))
    return Difference(plan.shape, len(rows), equal, largest, tolerance, agrees)


def _difference(
    loaded: LoadedModel,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> float:
    """Return the largest difference of two answers, relative to the largest value of the first."""
    ours, theirs = (
        comparable_values(loaded.info, output, inputs).cpu() for output in (here, there)
    )
    return float((ours - theirs).abs().max()) / (float(ours.abs().max()) or 1.0)


def _same(
    loaded: LoadedModel,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> bool:
    ours, theirs = (read_answers(loaded.info, output, inputs) for output in (here, there))
    ((first, *rest),) = compare(ours, theirs, None)
    return first >= _SAME_DIRECTION if ours.metric == "embedding" else first == rest[0]


def _tolerance(loaded: LoadedModel, plan: Plan) -> float:
    dtypes = (WIRE_DTYPES[plan.wire], next(loaded.model.parameters()).dtype)
    roundings = (_ROUNDINGS * torch.finfo(dtype).eps for dtype in dtypes)
    return max(_LEAST_TOLERANCE, *roundings)
