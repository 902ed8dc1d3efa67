"""How good an answer under a plan is: embeddings of texts, predictions of a language model.

The reference is always the original model, whole: what a user has today. After training, the
trained model's own whole answer is a row like any plan's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from studies.corpora import read_lines
from studies.method_data import StudyData
from torch.nn import functional

from prism.fidelity.copies import answer
from prism.fidelity.samples import Samples, open_samples
from prism.models.load import LoadedModel
from prism.plan import Plan

Metrics = Mapping[str, float]
WHOLE = Plan()


class Measure(Protocol):
    """Measures a model under a plan against the original, whole."""

    def __call__(self, loaded: LoadedModel, plan: Plan) -> Metrics: ...


class EmbeddingMeasure:
    """Cosine, retrieval and spam classification of pooled embeddings.

    Args:
        original: the model as it was fetched.
        data: held-out texts, and mails.
        samples: windows of held-out text.
        length: tokens of a text or mail at most.
        batch: samples per forward call.
        seed: of the draw of the windows.
    """

    def __init__(
        self,
        original: LoadedModel,
        data: StudyData,
        samples: int,
        length: int,
        batch: int,
        seed: int,
    ) -> None:
        self._batch = batch
        self._texts = open_samples(
            str(data.held_out), original, length=length, limit=samples, seed=seed
        )
        self._mails = open_samples(str(data.test_mails), original, length=length)
        self._spam = is_spam(data.test_mails)
        probe_mails = open_samples(str(data.probe_mails), original, length=length)
        self._probe = LogisticRegression(max_iter=1000).fit(
            embed(original, probe_mails, WHOLE, batch).numpy(), is_spam(data.probe_mails)
        )
        self._exact = embed(original, self._texts, WHOLE, batch)

    def __call__(self, loaded: LoadedModel, plan: Plan) -> Metrics:
        """Return `cosine`, `retrieval` and `spam`, each 0..1."""
        texts = embed(loaded, self._texts, plan, self._batch)
        mails = embed(loaded, self._mails, plan, self._batch)
        return {
            "cosine": float((texts * self._exact).sum(-1).mean()),
            "retrieval": retrieval_agreement(self._exact, texts),
            "spam": float(self._probe.score(mails.numpy(), self._spam)),
        }


class LanguageMeasure:
    """Perplexity, and agreement with the original on the next token.

    Args:
        original: the model as it was fetched.
        data: held-out texts.
        samples: windows of held-out text.
        length: tokens of a window.
        batch: windows per forward call.
        seed: of the draw of the windows.
    """

    def __init__(
        self,
        original: LoadedModel,
        data: StudyData,
        samples: int,
        length: int,
        batch: int,
        seed: int,
    ) -> None:
        self._batch = batch
        self._windows = open_samples(
            str(data.held_out), original, length=length, limit=samples, seed=seed
        )
        self._exact, self._exact_loss = predict(original, self._windows, WHOLE, batch)

    def __call__(self, loaded: LoadedModel, plan: Plan) -> Metrics:
        """Return `perplexity`, its `ratio` to the original's, and `agreement`, 0..1."""
        seen, loss = predict(loaded, self._windows, plan, self._batch)
        return {
            "perplexity": math.exp(loss),
            "ratio": math.exp(loss - self._exact_loss),
            "agreement": float((seen == self._exact).float().mean()),
        }


def is_spam(mails: Path) -> np.ndarray:
    """Return for each mail of a file whether it is spam, `(count,)` of bool."""
    return np.array([entry["label"] == "spam" for entry in read_lines(mails)])


def batches(
    samples: Samples, batch: int, plan: Plan
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Give the rows and the inputs of all samples, at most `batch` of one length at a time.

    Windows are equally long and come in order; mails are not, and padded ones would be split over
    the nodes at other places than a single request is.
    """
    for rows in samples.equal_batches(batch):
        yield rows, samples.batch(rows, plan.least_length)


def embed(loaded: LoadedModel, samples: Samples, plan: Plan, batch: int) -> torch.Tensor:
    """Return the mean of the last hidden states of the real tokens, of length 1, `(count, D)`."""
    found, order = [], []
    for rows, inputs in batches(samples, batch, plan):
        hidden_BND = answer(loaded, plan, inputs).last_hidden_state
        summed_BD = (hidden_BND * inputs["attention_mask"][..., None]).sum(1)
        found.append(functional.normalize(summed_BD, dim=-1))
        order += rows
    return torch.cat(found)[torch.tensor(order).argsort()]


def retrieval_agreement(exact_SD: torch.Tensor, seen_SD: torch.Tensor) -> float:
    """Return for how many samples the nearest other sample is the same one, 0..1.

    Args:
        exact_SD: embeddings of length 1, `(count, D)`, at least two.
        seen_SD: those of the same samples under a plan.
    """
    return float((nearest_other(exact_SD) == nearest_other(seen_SD)).float().mean())


def nearest_other(embeddings_SD: torch.Tensor) -> torch.Tensor:
    """Return the index of each embedding's nearest other one, `(count,)`."""
    similarity_SS = embeddings_SD @ embeddings_SD.T
    return similarity_SS.fill_diagonal_(-math.inf).argmax(-1)


def predict(
    loaded: LoadedModel, windows: Samples, plan: Plan, batch: int
) -> tuple[torch.Tensor, float]:
    """Return the likeliest next tokens, `(count, N - 1)`, and the mean loss of the true ones."""
    seen, losses = [], []
    for _, inputs in batches(windows, batch, plan):
        logits_BNV = answer(loaded, plan, inputs).logits[:, :-1]
        seen.append(logits_BNV.argmax(-1))
        truth_BN = inputs["input_ids"][:, 1:]
        losses.append(
            functional.cross_entropy(logits_BNV.transpose(1, 2), truth_BN, reduction="none")
        )
    return torch.cat(seen), float(torch.cat(losses).mean())


def study_plans(
    length: int, rates: Sequence[int], fixed: Sequence[int], lags: Sequence[int]
) -> list[Plan]:
    """Return the plans of a study: both groupings on 2, 3 and 4 nodes, float16 on the wire.

    Args:
        length: tokens of a sample.
        rates: compression rates; a rate means `length / (rate * nodes)` means per partition.
        fixed: numbers of means whatever the length.
        lags: 0, or 0 and 1 where the family defines lag.
    """
    plans = [WHOLE]
    for nodes in (2, 3, 4):
        counts = {*fixed, *(max(1, round(length / (rate * nodes))) for rate in rates)}
        for means in sorted(counts):
            for lag in lags:
                for grouping in "LC":
                    text = f"seq:{nodes}:{grouping}{means}{':lag1' * lag}:f16"
                    plans.append(Plan.parse(text))
    return plans
