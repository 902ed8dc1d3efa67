"""How far an answer is from the original model's: the loss that fine-tuning lowers.

A model that ends in logits is compared by them, since they are its answer: the Kullback-Leibler
divergence of the original's distribution (Hinton, Vinyals and Dean, 2015). A model that gives
hidden states is compared by those of real tokens and by the embedding that `answers` makes of them,
since nobody knows which of them an application reads: relative squared error and cosine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn import functional

from prism.fidelity.answers import comparable_values
from prism.models.inputs import main_input, token_mask
from prism.models.load import ModelInfo

_LOGITS = "logits"
_HIDDEN = "last_hidden_state"
_TINY = 1e-12

Output = Mapping[str, Any]


def answer_of(
    info: ModelInfo, model: torch.nn.Module, inputs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """Run a model and return what of its output is compared, padded positions left out.

    Args:
        info: its description.
        model: a transformers model.
        inputs: prepared ones.

    Returns:
        By name: logits `(rows, classes)`, hidden states `(rows, D)`, embeddings `(B, D)`; a row is
        a sample, or a real token where the model answers for each.

    Raises:
        RequestError: its output holds nothing that can be compared.
    """
    output = model(**inputs)
    real_BN = token_mask(main_input(info), inputs.get("attention_mask"))
    logits = output.get(_LOGITS)
    if logits is not None:
        return {_LOGITS: _real_rows(logits, real_BN) if logits.dim() == 3 else logits}
    hidden_BND = output.get(_HIDDEN)
    tokens = {} if hidden_BND is None else {_HIDDEN: _real_rows(hidden_BND, real_BN)}
    return {**tokens, "embedding": comparable_values(info, output, inputs)}


def distance(answer: Output, target: Output, config: Any) -> torch.Tensor:
    """Return how far an answer is from the original's, a scalar that is 0 where they are equal.

    Args:
        answer: as `answer_of` returns it.
        target: the original's, of the same inputs.
        config: the model's; says whether logits are classes or independent labels.
    """
    if _LOGITS in target:
        return _of_logits(answer[_LOGITS], target[_LOGITS], config)
    return torch.stack([_of_hidden(answer[name], target[name]) for name in target]).sum()


def label_loss(answer: Output, labels_B: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of a classifier's answer, a scalar."""
    return functional.cross_entropy(answer[_LOGITS].float(), labels_B)


def _real_rows(values_BNC: torch.Tensor, real_BN: torch.Tensor | None) -> torch.Tensor:
    return values_BNC.flatten(0, 1) if real_BN is None else values_BNC[real_BN]


def _of_logits(answer: torch.Tensor, target: torch.Tensor, config: Any) -> torch.Tensor:
    if getattr(config, "problem_type", None) == "multi_label_classification":
        return _of_chances(answer, target)
    return functional.kl_div(
        answer.log_softmax(-1), target.log_softmax(-1), reduction="batchmean", log_target=True
    )


def _of_chances(answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Divergence of independent labels: the cross entropy less what the target has by itself."""
    chances = target.sigmoid()
    entropy = functional.binary_cross_entropy_with_logits(target, chances)
    return functional.binary_cross_entropy_with_logits(answer, chances) - entropy


def _of_hidden(answer: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    squared = (answer - target).square().sum(-1) / target.square().sum(-1).clamp_min(_TINY)
    return (squared + 1 - functional.cosine_similarity(answer, target, dim=-1)).mean()
