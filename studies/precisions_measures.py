"""What a precision loses on one kind of model, with 95 % intervals: one measure per kind.

A measure reads of the answers to a batch what it compares, and makes metrics of what the model said
in float32, whole, and at a precision under a plan.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from studies.method_measures import nearest_other
from torch.nn import functional

from prism.fidelity.metrics import Loss, lost_accuracy, lost_agreement, mean_loss

Inputs = Mapping[str, torch.Tensor]
Metrics = dict[str, Loss]
"""By name a value with its interval; `low` and `high` are equal to it where it has none."""


class Measure(Protocol):
    """Attributes: columns: heading, key and format of each metric."""

    columns: tuple[tuple[str, str, str], ...]

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        """Return what is compared, one entry per sample."""

    def compare(
        self, exact: torch.Tensor, seen: torch.Tensor, labels: torch.Tensor | None
    ) -> Metrics:
        """Return the metrics of all samples, in order."""


class Classes:
    """Accuracy, the points of it that are lost, and the share of samples that keep their class."""

    columns = (
        ("accuracy", "accuracy", ".4f"),
        ("accuracy lost", "lost", ".4f"),
        ("same class", "agreement", ".4f"),
    )

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        classes: torch.Tensor = output.logits.argmax(-1)
        return classes

    def compare(
        self, exact: torch.Tensor, seen: torch.Tensor, labels: torch.Tensor | None
    ) -> Metrics:
        assert labels is not None
        before, after = exact == labels, seen == labels
        accuracy = float(after.float().mean())
        return {
            "accuracy": Loss(accuracy, accuracy, accuracy),
            "lost": lost_accuracy(
                int((before & ~after).sum()), int((after & ~before).sum()), len(labels)
            ),
            "agreement": _same(exact == seen),
        }


class Embeddings:
    """Cosine of mean-pooled embeddings, and the share of texts with the same nearest other one."""

    columns = (("cosine", "cosine", ".4f"), ("same nearest text", "retrieval", ".3f"))

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        summed_BD = (output.last_hidden_state * inputs["attention_mask"][..., None]).sum(1)
        return functional.normalize(summed_BD, dim=-1)

    def compare(
        self, exact: torch.Tensor, seen: torch.Tensor, labels: torch.Tensor | None
    ) -> Metrics:
        cosines_S = (exact * seen).sum(-1).clamp(max=1.0)
        return {
            "cosine": _kept(mean_loss((1.0 - cosines_S).tolist())),
            "retrieval": _same(nearest_other(exact) == nearest_other(seen)),
        }


class Predictions:
    """Perplexity, its ratio to the whole model's, and the share of equal likeliest next tokens."""

    columns = (
        ("perplexity", "perplexity", ".2f"),
        ("ratio", "ratio", ".4f"),
        ("same next token", "agreement", ".3f"),
    )

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        """Return the likeliest token and the loss of the true one, `(B, N - 1, 2)`."""
        logits_BNV, truth_BN = output.logits[:, :-1], inputs["input_ids"][:, 1:]
        losses_BN = functional.cross_entropy(logits_BNV.transpose(1, 2), truth_BN, reduction="none")
        return torch.stack([logits_BNV.argmax(-1).double(), losses_BN.double()], dim=-1)

    def compare(
        self, exact: torch.Tensor, seen: torch.Tensor, labels: torch.Tensor | None
    ) -> Metrics:
        same_SN = exact[..., 0] == seen[..., 0]
        perplexity = float(seen[..., 1].mean().exp())
        # Windows are independent of each other, tokens of one window are not.
        more = mean_loss((seen - exact)[..., 1].mean(1).tolist())
        lost = lost_agreement(same_SN.sum(1).tolist(), [same_SN.shape[1]] * len(same_SN))
        return {
            "perplexity": Loss(perplexity, perplexity, perplexity),
            "ratio": Loss(*(math.exp(value) for value in (more.value, more.low, more.high))),
            "agreement": _kept(lost),
        }


def _same(equal_S: torch.Tensor) -> Loss:
    return _kept(lost_agreement(equal_S.int().tolist(), [1] * len(equal_S)))


def _kept(lost: Loss) -> Loss:
    """Return 1 - loss, with its interval."""
    return Loss(1.0 - lost.value, 1.0 - lost.high, min(1.0, 1.0 - lost.low))
