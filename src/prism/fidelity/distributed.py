"""Whether node processes give the answers that the measurement in one process assumed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
_INT8_STEP = 1 / 127  # of the largest value
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
    return tuple(_compare(copies.of(plan), samples, plan, rows, run) for plan in plans)


def _compare(
    loaded: LoadedModel, samples: Samples, plan: Plan, rows: range, run: Run
) -> Difference:
    largest, equal = 0.0, 0
    for row in rows:
        inputs = samples.batch([row], plan.least_length)
        here, there = answer(loaded, plan, inputs), run(plan, inputs)
        here_values, there_values = (
            comparable_values(loaded.info, output, inputs).cpu() for output in (here, there)
        )
        scale = float(here_values.abs().max()) or 1.0
        largest = max(largest, float((here_values - there_values).abs().max()) / scale)
        equal += _same(loaded, here, there, inputs)
    tolerance = _tolerance(loaded, plan)
    agrees = largest <= tolerance or (plan.grouping == "clusters" and equal == len(rows))
    return Difference(plan.shape, len(rows), equal, largest, tolerance, agrees)


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
    steps = [torch.finfo(dtype).eps for dtype in dtypes]
    if plan.precision == "int8":
        steps.append(_INT8_STEP)
    return max(_LEAST_TOLERANCE, _ROUNDINGS * max(steps))
