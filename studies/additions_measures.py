"""What an addition is worth on one model: one measure per model of `studies.additions`.

A measure reads of the answers to a batch what it compares, and makes metrics of what the whole
model and a partitioned one said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from prism.partition.spans import spans

Inputs = Mapping[str, torch.Tensor]
Metrics = dict[str, float]


class Measure(Protocol):
    """Attributes: columns: heading, key and format of each metric."""

    columns: tuple[tuple[str, str, str], ...]

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        """Return what is compared, one entry per sample."""

    def compare(self, exact: torch.Tensor, seen: torch.Tensor, nodes: int) -> Metrics:
        """Return the metrics of all samples."""


class Embeddings:
    """Mean cosine of mean-pooled embeddings, and mean relative error of the last hidden state."""

    columns = (("cosine", "cosine", ".4f"), ("error", "error", ".3f"))

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        hidden: torch.Tensor = output.last_hidden_state * inputs["attention_mask"][..., None]
        return hidden

    def compare(self, exact: torch.Tensor, seen: torch.Tensor, nodes: int) -> Metrics:
        return {
            "cosine": float(cosine_similarity(exact.sum(1), seen.sum(1)).mean()),
            "error": relative_error(exact, seen),
        }


class Perplexity:
    """Perplexity over that of the whole model: all rows, those after the first partition, worst.

    The first partition of a causal model hears from nobody: its rows are exact under any plan.
    """

    columns = (
        ("ratio", "ratio", ".3f"),
        ("ratio after the first partition", "later", ".3f"),
        ("worst window", "worst", ".2f"),
    )

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        logits_BNV, truth_BN = output.logits[:, :-1], inputs["input_ids"][:, 1:]
        return cross_entropy(logits_BNV.transpose(1, 2), truth_BN, reduction="none")

    def compare(self, exact: torch.Tensor, seen: torch.Tensor, nodes: int) -> Metrics:
        more = seen - exact
        first = spans(exact.shape[1] + 1, nodes)[0].size
        return {
            "ratio": float(more.mean().exp()),
            "later": float(more[:, first:].mean().exp()),
            "worst": float(more.mean(1).max().exp()),
        }


class Classes:
    """Share of samples that keep their class, and mean relative error of the logits."""

    columns = (("agreement", "agreement", ".4f"), ("error", "error", ".3f"))

    def read(self, output: Any, inputs: Inputs) -> torch.Tensor:
        logits: torch.Tensor = output.logits
        return logits

    def compare(self, exact: torch.Tensor, seen: torch.Tensor, nodes: int) -> Metrics:
        same = exact.argmax(-1) == seen.argmax(-1)
        return {"agreement": float(same.float().mean()), "error": relative_error(exact, seen)}


def relative_error(exact: torch.Tensor, seen: torch.Tensor) -> float:
    """Return |seen - exact| / |exact|, mean over samples."""
    exact, seen = exact.flatten(1), seen.flatten(1)
    return float(((seen - exact).norm(dim=1) / exact.norm(dim=1)).mean())
