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

_OVER_POSITIONS = ("start_logits", "end_logits")  # a choice of a position, not of a class
_HIDDEN = "last_hidden_state"
# Of a padded position in a choice among positions: no chance, and still finite.
_NEVER = -1e4
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
    logits = {
        name: _real_logits(name, value, real_BN)
        for name, value in output.items()
        if name.endswith("logits") and isinstance(value, torch.Tensor)
    }
    if logits:
        return logits
    hidden_BND = output.get(_HIDDEN)
    tokens = {} if hidden_BND is None else {_HIDDEN: _real_rows(hidden_BND, real_BN)}
    return {**tokens, "embedding": comparable_values(info, output, inputs)}


def distance(answer: Output, target: Output, config: Any) -> torch.Tensor:
    """Return how far an answer is from the original's, a scalar that is 0 where they are equal.

    Args:
        answer: as `answer_of` returns it.
        target: the original's, of the same inputs.
        config: the model's; says whether logits are classes, independent labels or plain scores.
    """
    parts = [
        _of_logits(answer[name], target[name], config)
        if name.endswith("logits")
        else _of_hidden(answer[name], target[name])
        for name in target
    ]
    return torch.stack(parts).sum()


def label_loss(answer: Output, labels_B: torch.Tensor) -> torch.Tensor:
    """Return the cross entropy of a classifier's answer, a scalar."""
    return functional.cross_entropy(answer["logits"].float(), labels_B)


def _real_logits(name: str, logits: torch.Tensor, real_BN: torch.Tensor | None) -> torch.Tensor:
    if name in _OVER_POSITIONS:
        return logits if real_BN is None else logits.masked_fill(~real_BN, _NEVER)
    return _real_rows(logits, real_BN) if logits.dim() == 3 else logits


def _real_rows(values_BNC: torch.Tensor, real_BN: torch.Tensor | None) -> torch.Tensor:
    return values_BNC.flatten(0, 1) if real_BN is None else values_BNC[real_BN]


def _of_logits(answer: torch.Tensor, target: torch.Tensor, config: Any) -> torch.Tensor:
    if target.shape[-1] == 1:  # a score: the softmax of one value says nothing
        return functional.mse_loss(answer, target)
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
