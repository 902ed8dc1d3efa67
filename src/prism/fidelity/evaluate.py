"""What plans are worth: the same samples, exactly and under each plan, in one process."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prism.errors import RequestError
from prism.fidelity.answers import Answers, compare, read_answers
from prism.fidelity.copies import Copies, answer
from prism.fidelity.labels import largest_batch
from prism.fidelity.measured import Measured, Rows
from prism.fidelity.plans_to_measure import measured_as
from prism.fidelity.samples import Samples
from prism.fidelity.summary import Evaluated, summarise
from prism.models.inputs import check_plan_of_family
from prism.models.load import LoadedModel
from prism.perfmap.schema import AccuracyMetric
from prism.plan import Plan
from prism.version import VERSION

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
    copies: Copies | None = None,
) -> tuple[Evaluated, ...]:
    """Return what each plan is worth against the exact answers to the same samples.

    The metric follows from the model and the data: `accuracy` for a classifier and labels,
    `agreement` without labels, `language` for a causal language model, else `embedding`.

        for each batch of equally long samples: exact = answers of the model
            for each plan: note compare(exact, answers under the plan) for each sample,
                           given by the model at the plan's precision
        for each plan: summarise its rows

    Args:
        loaded: the model.
        samples: at least one.
        plans: of different shapes. Those that exchange nothing inside the model are one measurement
            by precision, which is called `local`, `local:half` or `local:int8`.
        batch: samples per forward call, at most; changes no figure.
        resume: file that keeps what was measured, so that a stopped evaluation goes on from it.
            It stays until the caller removes it, once the result is kept.
        advance: called once per sample, those measured before included.
        copies: of the model, where somebody has them; None = made here, and dropped at the end.

    Raises:
        UnsupportedPrecision: the model cannot be had at a plan's precision, before any work.
        PlanError: a plan is not defined for the model.
        RequestError: the model cannot take the samples, a plan needs more tokens, or two plans
            are the same.
        MapError: `resume` cannot be written.
    """
    _check_plans(loaded, plans)
    copies = copies or Copies(loaded)
    for plan in plans:
        copies.of(plan)
    longest = samples.check_lengths(loaded.info, plans)
    first = first_answer(loaded, samples)
    metric = metric_of(first, samples)
    measured = Measured(resume, identity_of(loaded, samples), metric)
    order: list[int] = []
    try:
        for rows in samples.equal_batches(_batch_size(loaded, longest, first, batch)):
            _measure(copies, samples, plans, rows, len(order), measured)
            order += rows
            measured.save_soon()
            for _ in rows:
                advance()
    finally:
        measured.save()
    return tuple(
        summarise(plan, metric, _in_order(measured.rows(plan.shape), order), samples.name, longest)
        for plan in map(measured_as, plans)
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


def _answers(loaded: LoadedModel, plan: Plan, inputs: Mapping[str, Any]) -> Answers:
    return read_answers(loaded.info, answer(loaded, plan, inputs), inputs)


def first_answer(loaded: LoadedModel, samples: Samples) -> Answers:
    """Answer the first sample, so that what cannot be compared is known before any work.

    Raises:
        RequestError: the model gives nothing that can be compared.
    """
    return _answers(loaded, _NONE, samples.batch([0]))


def _measure(
    copies: Copies,
    samples: Samples,
    plans: Sequence[Plan],
    rows: Sequence[int],
    before: int,
    measured: Measured,
) -> None:
    """Note the figures of one batch, which comes after so many, for every plan that lacks them."""
    by_tokens = defaultdict(list)
    for plan in dict.fromkeys(map(measured_as, plans)):
        if len(measured.rows(plan.shape)) < before + len(rows):
            by_tokens[_least_tokens(samples, rows, plan)].append(plan)
    labels_B = None if samples.labels is None else samples.labels[list(rows)]
    for least, missing in by_tokens.items():
        inputs = samples.batch(rows, least)
        exact = _answers(copies.loaded, _NONE, inputs)
        for plan in missing:
            lossy = exact if plan == _NONE else _answers(copies.of(plan), plan, inputs)
            measured.add(plan.shape, before, compare(exact, lossy, labels_B))


def _least_tokens(samples: Samples, rows: Sequence[int], plan: Plan) -> int:
    """Return the tokens a plan makes of equally long texts: more than theirs for a very short one.

    Each plan pads for itself alone, so that no other plan changes its figures.
    """
    tokens = samples.tokens(rows[0])
    return max(tokens, plan.least_length) if tokens else 1


def _batch_size(loaded: LoadedModel, longest: int, first: Answers, batch: int) -> int:
    """Return how many samples a forward call may have, by the size of their logits too."""
    batch = largest_batch(loaded.info, batch)
    if first.choices_BN is None or first.choices_BN.shape[1] == 1:
        return batch
    return max(1, min(batch, _MOST_LOGITS // (longest * first.width)))


def _in_order(rows: Rows, order: Sequence[int]) -> Rows:
    """Return the figures by sample, from the order in which they were measured."""
    by_sample = dict(zip(order, rows, strict=True))
    return [by_sample[row] for row in range(len(order))]


def identity_of(loaded: LoadedModel, samples: Samples) -> str:
    """Return what figures depend on besides the plan, as a SHA-256: weights, data, prism itself."""
    parts = (loaded.fingerprint, loaded.info.architecture.__name__, samples.digest, VERSION)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
