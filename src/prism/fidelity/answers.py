"""What a model says about each sample, and how it compares with what it says exactly.

The kind of answer follows from the output: classes for a classifier, the next token for a causal
language model, an embedding for a model without logits. Logits are large (batch x length x
vocabulary), so an answer keeps only what is compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn import functional

from prism.errors import RequestError
from prism.models.inputs import main_input, token_mask
from prism.models.load import ModelInfo
from prism.models.outputs import Reduction, settle_form
from prism.output_form import OutputForm
from prism.perfmap.schema import AccuracyMetric


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says about the samples of one batch.

    Attributes:
        metric: how such answers are compared; `agreement` becomes `accuracy` where labels are.
        choices_BN: the class of each sample `(B, 1)`, of each token `(B, N)`, or the sign of each
            of several labels `(B, labels)`.
        counted_BN: which of the choices count, `(B, N)` of bool; padding does not.
        loss_B: negative log likelihood of each sample's own next tokens, summed, in nats.
        targets_B: how many tokens that is.
        embedding_BD: one vector per sample, float32.
        width: numbers that a choice is made of.
    """

    metric: AccuracyMetric
    choices_BN: torch.Tensor | None = None
    counted_BN: torch.Tensor | None = None
    loss_B: torch.Tensor | None = None
    targets_B: torch.Tensor | None = None
    embedding_BD: torch.Tensor | None = None
    width: int = 1


def read_answers(info: ModelInfo, output: Mapping[str, Any], inputs: Mapping[str, Any]) -> Answers:
    """Read a model's output.

    Args:
        info: the model.
        output: what it returned, by name.
        inputs: what it was given.

    Raises:
        RequestError: the output holds nothing that can be compared, or no numbers.
    """
    logits = output.get("logits")
    if logits is None:
        embedding_BD = _embedding(info, output, inputs)
        _require_numbers(info, embedding_BD)
        return Answers("embedding", embedding_BD=embedding_BD)
    width = int(logits.shape[-1])
    best, choices = logits.max(-1)
    if logits.dim() == 2:
        _require_numbers(info, best)
        if logits.shape[1] == 1:
            raise RequestError(
                f"{info.architecture.__name__} gives one number per sample, and agreement of "
                f"numbers is not defined; measure a classifier, a language model or an embedding"
            )
        choices = choices[:, None]
        if getattr(info.config, "problem_type", None) == "multi_label_classification":
            choices = (logits > 0).long()
        return Answers("agreement", choices, torch.ones_like(choices, dtype=torch.bool))
    real_BN = _real(info, inputs, choices)
    _require_numbers(info, best[real_BN])
    if not info.family.causal:
        return Answers("agreement", choices, real_BN, width=width)
    ids_BN = inputs["input_ids"].to(logits.device)
    # A token is predicted from the one before it; the first is given.
    followed_BN = real_BN[:, 1:] & real_BN[:, :-1]
    loss_B = torch.stack([_loss(*each) for each in zip(logits, ids_BN, followed_BN, strict=True)])
    return Answers("language", choices, real_BN, loss_B, followed_BN.sum(1), width=width)


def compare(exact: Answers, lossy: Answers, labels_B: torch.Tensor | None) -> list[list[float]]:
    """Return a row of figures per sample; `summary` explains the columns of each metric.

    Args:
        exact: the unmodified model's answers to the same batch.
        lossy: a plan's.
        labels_B: the right classes, where they are known.
    """
    if exact.embedding_BD is not None and lossy.embedding_BD is not None:
        cosines_B = functional.cosine_similarity(exact.embedding_BD, lossy.embedding_BD)
        return [[cosine] for cosine in cosines_B.tolist()]
    assert exact.choices_BN is not None and lossy.choices_BN is not None
    assert exact.counted_BN is not None
    same_BN = (exact.choices_BN == lossy.choices_BN) & exact.counted_BN
    columns = [same_BN.sum(1), exact.counted_BN.sum(1)]
    if labels_B is not None:
        labels_B1 = labels_B[:, None].to(exact.choices_BN.device)
        columns = [
            choices_BN.eq(labels_B1).sum(1) for choices_BN in (exact.choices_BN, lossy.choices_BN)
        ] + columns[:1]
    elif exact.loss_B is not None and lossy.loss_B is not None and exact.targets_B is not None:
        columns += [exact.loss_B, lossy.loss_B, exact.targets_B]
    return torch.stack([column.double() for column in columns], dim=1).tolist()


def comparable_values(
    info: ModelInfo, output: Mapping[str, Any], inputs: Mapping[str, Any]
) -> torch.Tensor:
    """Return the numbers that a model's answers follow from, without padding, in float32.

    Raises:
        RequestError: the output holds nothing that can be compared.
    """
    logits = output.get("logits")
    if logits is None:
        return _embedding(info, output, inputs)
    values: torch.Tensor = logits.float()
    return values[_real(info, inputs, values[..., 0])] if values.dim() == 3 else values


def _require_numbers(info: ModelInfo, values: torch.Tensor) -> None:
    """Refuse what has no value: any two would count as equal answers."""
    if bool(values.isnan().any()):
        raise RequestError(
            f"{info.source or info.architecture.__name__} gives NaN on these samples; check its "
            f"weights, or use float32"
        )


def _real(info: ModelInfo, inputs: Mapping[str, Any], choices_BN: torch.Tensor) -> torch.Tensor:
    real_BN = token_mask(main_input(info), inputs.get("attention_mask"))
    if real_BN is None:
        return torch.ones_like(choices_BN, dtype=torch.bool)
    return real_BN.to(choices_BN.device)


def _loss(logits_NV: torch.Tensor, ids_N: torch.Tensor, followed_n: torch.Tensor) -> torch.Tensor:
    chosen_nV = logits_NV[:-1][followed_n].float()
    return functional.cross_entropy(chosen_nV, ids_N[1:][followed_n], reduction="sum")


def _embedding(
    info: ModelInfo, output: Mapping[str, Any], inputs: Mapping[str, Any]
) -> torch.Tensor:
    """Return the vector a caller gets of each sample as `pooled`, `(B, D)` of float32."""
    try:
        embedding_BD: torch.Tensor = Reduction(info, _pooled_form(info), inputs)(output)
    except RequestError:
        raise RequestError(
            f"{info.architecture.__name__} gives {', '.join(output) or 'nothing'}, which holds "
            f"neither logits nor an embedding to compare"
        ) from None
    return embedding_BD


def _pooled_form(info: ModelInfo) -> OutputForm:
    try:
        return settle_form(info, OutputForm("pooled"))
    except RequestError:
        # Its files ask for more than pooling; what comes before that can be compared as well.
        return settle_form(replace(info, files=""), OutputForm("pooled"))
