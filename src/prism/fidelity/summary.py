"""From rows of figures per sample to what a plan is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from prism.fidelity.metrics import Loss, lost_accuracy, lost_agreement, mean_loss
from prism.perfmap.schema import Accuracy, AccuracyMetric
from prism.plan import Plan

# The columns of a row, by metric, in the order in which they are stored.
COLUMNS: Mapping[AccuracyMetric, tuple[str, ...]] = {
    "accuracy": ("exact answer is right", "answer is right", "answers are equal"),
    "agreement": ("equal answers", "answers"),
    "embedding": ("cosine",),
    "language": ("equal answers", "answers", "exact loss", "loss", "predicted tokens"),
}


@dataclass(frozen=True, slots=True)
class Evaluated(Accuracy):
    """What a plan is worth, with the figures that only this metric has.

    Attributes:
        extras: `correct` and `agreement` (accuracy); `tokens` (agreement by token);
            `lowest_cosine` (embedding); `tokens`, `perplexity` and `perplexity_ratio`, to the
            unmodified model's (language).
    """

    extras: Mapping[str, float] = field(default_factory=dict, compare=False)

    def for_map(self) -> Accuracy:
        """Return what a performance map keeps of it."""
        return Accuracy(**{each.name: getattr(self, each.name) for each in fields(Accuracy)})


def summarise(
    plan: Plan,
    metric: AccuracyMetric,
    rows: Sequence[Sequence[float]],
    task: str,
    longest: int,
) -> Evaluated:
    """Return what a plan is worth, of one row per sample.

    Args:
        plan: what was measured.
        metric: how; says what a row holds (`COLUMNS`).
        rows: at least one.
        task: the data.
        longest: tokens of the longest sample.
    """
    loss, extras = _loss(metric, list(zip(*rows, strict=True)))
    accuracy = extras["correct"] / len(rows) if metric == "accuracy" else 1.0 - loss.value
    exact = plan.exact and loss.value == 0.0  # the same answers by definition, not by chance
    return Evaluated(
        plan=plan.shape,
        accuracy=_clipped(accuracy, 0.0),
        drop=_clipped(loss.value, -1.0),
        count=len(rows),
        task=task,
        metric=metric,
        drop_low=0.0 if exact else _clipped(loss.low, -1.0),
        drop_high=0.0 if exact else _clipped(loss.high, -1.0),
        longest=longest,
        extras=extras,
    )


def _loss(
    metric: AccuracyMetric, columns: Sequence[Sequence[float]]
) -> tuple[Loss, dict[str, float]]:
    if metric == "embedding":
        (cosines,) = columns
        losses = [1.0 - min(cosine, 1.0) for cosine in cosines]
        return mean_loss(losses), {"lowest_cosine": min(cosines)}
    if metric == "accuracy":
        exact, right, same = columns
        lost = sum(before > after for before, after in zip(exact, right, strict=True))
        gained = sum(before < after for before, after in zip(exact, right, strict=True))
        extras = {"correct": int(sum(right)), "agreement": sum(same) / len(same)}
        return lost_accuracy(lost, gained, len(right)), extras
    same, of = ([int(each) for each in column] for column in columns[:2])
    extras = {"tokens": sum(of)} if sum(of) > len(of) else {}
    if metric == "language":
        exact_loss, loss, tokens = (sum(column) for column in columns[2:])
        extras["perplexity"] = math.exp(min(loss / max(tokens, 1), 700.0))
        extras["perplexity_ratio"] = math.exp(min((loss - exact_loss) / max(tokens, 1), 700.0))
    return lost_agreement(same, of), extras


def _clipped(value: float, low: float) -> float:
    return max(low, min(1.0, value))
