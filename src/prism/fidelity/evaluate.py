"""What plans are worth: the same samples, exactly and under each plan, in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from prism.errors import RequestError
from prism.fidelity.answers import Answers, compare, read_answers
from prism.fidelity.measured import Measured
from prism.fidelity.samples import Samples
from prism.fidelity.summary import Evaluated, summarise
from prism.models.inputs import check_inputs, check_plan_of_family, prepare
from prism.models.load import LoadedModel
from prism.models.virtual import virtual
from prism.perfmap.schema import AccuracyMetric
from prism.plan import Plan

# Logits of a language model held at once: 256 MB in float32, of one plan.
_MOST_LOGITS = 2**26
_NONE = Plan()


def evaluate(
    loaded: LoadedModel,
    samples: Samples,
    plans: Sequence[Plan],
    *,
    batch: int = 8,
    resume: Path | None = None,
    advance: Callable[[], object] = lambda: None,
) -> tuple[Evaluated, ...]:
    """Return what each plan is worth against the exact answers to the same samples.

    The metric follows from the model and the data: `accuracy` for a classifier and labels,
    `agreement` without labels, `language` for a causal language model, else `embedding`.

        for each batch: exact = answers of the model
            for each plan: note compare(exact, answers under the plan) for each sample
        for each plan: summarise its rows

    Args:
        loaded: the model.
        samples: at least one.
        plans: of different shapes; those that split nothing inside the model lose nothing.
        batch: samples per forward call; fewer where the logits would be too large.
        resume: file that keeps what was measured, so that a stopped evaluation goes on from it.
            It stays until the caller removes it, once the result is kept.
        advance: called once per sample, those measured before included.

    Raises:
        PlanError: a plan is not defined for the model.
        RequestError: the model cannot take the samples, a plan needs more tokens, or two plans
            are the same.
        MapError: `resume` cannot be written.
    """
    _check_plans(loaded, plans)
    first = _first_answer(loaded, samples, plans)
    metric = metric_of(first, samples)
    measured = Measured(resume, _identity(loaded, samples), metric)
    size = _batch_size(loaded, samples, first, batch)
    try:
        for start in range(0, len(samples), size):
            rows = range(start, min(start + size, len(samples)))
            _measure(loaded, samples, plans, rows, measured)
            measured.save_soon()
            for _ in rows:
                advance()
    finally:
        measured.save()
    return tuple(
        summarise(plan, metric, measured.rows(plan.shape)[: len(samples)], samples.name)
        for plan in plans
    )


def _check_plans(loaded: LoadedModel, plans: Sequence[Plan]) -> None:
    shapes = [plan.shape for plan in plans]
    for plan in plans:
        check_plan_of_family(loaded.info.family, loaded.info.config, plan)
        if shapes.count(plan.shape) > 1:
            raise RequestError(f"{plan.shape} is asked for twice; name each plan once")


def metric_of(answers: Answers, samples: Samples) -> AccuracyMetric:
    """Return how a model's answers to these samples are compared."""
    labelled = samples.labels is not None and answers.metric == "agreement"
    return "accuracy" if labelled else answers.metric


def answer(loaded: LoadedModel, plan: Plan, inputs: Mapping[str, Any]) -> Any:
    """Return what the model gives under a plan, in this process.

    Args:
        loaded: the model.
        plan: what is computed; `local` is the unmodified model.
        inputs: as a caller gives them.
    """
    prepared = prepare(loaded.info, inputs, loaded.model)
    with torch.inference_mode(), virtual(loaded.model, plan, prepared.get("attention_mask")):
        return loaded.model(**prepared)


def _answers(loaded: LoadedModel, plan: Plan, inputs: Mapping[str, Any]) -> Answers:
    return read_answers(loaded.info, answer(loaded, plan, inputs), inputs)


def _first_answer(loaded: LoadedModel, samples: Samples, plans: Sequence[Plan]) -> Answers:
    """Answer one sample, so that what cannot be measured is known before any work."""
    if not len(samples):
        raise RequestError(f"{samples.name} holds no sample; give at least one")
    inputs = samples.batch([0])
    _, length = check_inputs(loaded.info, inputs)
    for plan in plans:
        if plan.least_length > length:
            raise RequestError(
                f"{plan} needs at least {plan.least_length} tokens, the samples have {length}; "
                f"use fewer nodes"
            )
    return _answers(loaded, _NONE, inputs)


def _measure(
    loaded: LoadedModel,
    samples: Samples,
    plans: Sequence[Plan],
    rows: range,
    measured: Measured,
) -> None:
    """Note the figures of one batch for every plan that lacks them."""
    missing = [plan for plan in plans if len(measured.rows(plan.shape)) < rows.stop]
    if not missing:
        return
    inputs = samples.batch(rows)
    labels_B = None if samples.labels is None else samples.labels[rows.start : rows.stop]
    exact = _answers(loaded, _NONE, inputs)
    for plan in missing:
        lossy = _answers(loaded, plan, inputs) if plan.exchanges else exact
        measured.add(plan.shape, rows.start, compare(exact, lossy, labels_B))


def _batch_size(loaded: LoadedModel, samples: Samples, first: Answers, batch: int) -> int:
    """Return how many samples a forward call may have, by the size of their logits."""
    if first.choices_BN is None or first.choices_BN.shape[1] == 1:
        return batch
    tokens = loaded.info.shape.max_length if samples.kind == "text" else first.choices_BN.shape[1]
    return max(1, min(batch, _MOST_LOGITS // (tokens * first.width)))


def _identity(loaded: LoadedModel, samples: Samples) -> tuple[str, ...]:
    return loaded.fingerprint, loaded.info.architecture.__name__, samples.digest
