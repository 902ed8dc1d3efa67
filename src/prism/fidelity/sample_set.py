"""Samples of a data set as a model takes them, and how some of many are chosen."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal, TypeVar

import torch
from torch.nn.functional import pad

from prism.errors import RequestError
from prism.models.inputs import check_inputs
from prism.models.load import ModelInfo
from prism.plan import Plan

Kind = Literal["images", "text", "tokens", "arrays"]
Read = Callable[[Sequence[int]], dict[str, torch.Tensor]]
_Candidate = TypeVar("_Candidate")
_Sample = TypeVar("_Sample")


@dataclass(frozen=True, slots=True)
class Selection:
    """What of a data set is asked for.

    Attributes:
        length: tokens of a text; longer ones are cut. None = as long as they are.
        limit: so many samples, drawn at random; None = all.
        seed: of the draw.
        labels: whether labels are looked at.
    """

    length: int | None = None
    limit: int | None = None
    seed: int = 0
    labels: bool = True


@dataclass(frozen=True, slots=True)
class Texts:
    """What samples have that are texts of different lengths.

    Attributes:
        lengths: tokens of each.
        padding: the token that fills a text up.
    """

    lengths: Sequence[int]
    padding: int


class Samples:
    """Samples of one data set, read a batch at a time.

    Args:
        name: of the data set, for people.
        kind: `images`, `text` (of different lengths), `tokens` (windows of one length) or
            `arrays`.
        contents: what makes each sample what it is, for the digest.
        read: gives the inputs of some samples.
        labels: `(count,)` of int64, classes of the model; None where nobody gave any.
        skipped: files or rows that could not be used.
        texts: their lengths, where these differ.

    Attributes:
        digest: SHA-256 of all samples and their labels, in order.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        contents: Sequence[bytes],
        read: Read,
        labels: torch.Tensor | None = None,
        skipped: int = 0,
        texts: Texts | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.labels = labels
        self.skipped = skipped
        self.digest = _digest(contents, labels)
        self._count = len(contents)
        self._read = read
        self._texts = texts

    def __len__(self) -> int:
        return self._count

    def batch(self, rows: Sequence[int], least: int = 1) -> dict[str, torch.Tensor]:
        """Return the inputs of some samples as a caller gives them to the model, on the CPU.

        Args:
            rows: at least one, each in 0..len - 1.
            least: tokens that a plan needs; shorter texts are padded so far.

        Raises:
            RequestError: a file was readable when the data set was opened and is no longer.
        """
        inputs = self._read(rows)
        if self._texts is None:
            return inputs
        missing = max(0, least - inputs["input_ids"].shape[1])
        fill = {"input_ids": self._texts.padding}
        return {
            key: pad(each, (0, missing), value=fill.get(key, 0)) for key, each in inputs.items()
        }

    def equal_batches(self, size: int, rows: Sequence[int] | None = None) -> Iterator[list[int]]:
        """Give the rows of samples that are equally long, at most `size` at a time.

        Which rows an answer is computed with then changes nothing in it: a padded text would be
        split over the nodes at other places than it is by itself. The order of all rows, shorter
        texts first, is the same for every size.

        Args:
            size: of a batch.
            rows: of which samples; None = all.
        """
        chosen = range(len(self)) if rows is None else rows
        for _, group in groupby(sorted(chosen, key=self.tokens), self.tokens):
            alike = list(group)
            for start in range(0, len(alike), size):
                yield alike[start : start + size]

    def longest(self, info: ModelInfo) -> int:
        """Return the tokens of the longest sample, as the model counts them.

        Raises:
            RequestError: there is no sample, or the model cannot take the first.
        """
        if not len(self):
            raise RequestError(f"{self.name} holds no sample; give at least one")
        _, length = check_inputs(info, self.batch([0]))
        return length if self._texts is None else max(self._texts.lengths)

    def check_lengths(self, info: ModelInfo, plans: Iterable[Plan]) -> int:
        """Check that plans have a token for each node; return the tokens of the longest sample.

        Raises:
            RequestError: a plan needs more, or as `longest` does.
        """
        length = self.longest(info)
        for plan in plans:
            if plan.least_length > length:
                raise RequestError(
                    f"{plan} needs at least {plan.least_length} tokens, the samples have {length}; "
                    f"use fewer nodes"
                )
        return length

    def part(self, rows: Sequence[int], name: str, skipped: int) -> Samples:
        """Return some of the samples as a data set of its own.

        Args:
            rows: which, in order.
            name: of the new data set.
            skipped: how many that could not be used count as its own.
        """
        texts = self._texts
        return Samples(
            name,
            self.kind,
            [f"{self.digest} {row}".encode() for row in rows],
            lambda some: self.batch([rows[index] for index in some]),
            None if self.labels is None else self.labels[rows],
            skipped,
            texts and Texts([texts.lengths[row] for row in rows], texts.padding),
        )

    def tokens(self, row: int) -> int:
        """Return the tokens of a text; 0 for all samples where they are equally long."""
        return 0 if self._texts is None else self._texts.lengths[row]


def take(
    candidates: Sequence[_Candidate],
    read: Callable[[_Candidate], _Sample | None],
    selection: Selection,
) -> tuple[list[_Sample], int]:
    """Read candidates until there are enough, or all; return them in order, and how many failed.

    Args:
        candidates: what may become a sample.
        read: gives None for one that cannot be used.
        selection: its limit and its seed; too high a limit = all.
    """
    limit, order = selection.limit, list(range(len(candidates)))
    if limit is not None:
        random.Random(selection.seed).shuffle(order)
    found: dict[int, _Sample] = {}
    skipped = 0
    for index in order:
        if limit is not None and len(found) == limit:
            break
        sample = read(candidates[index])
        if sample is None:
            skipped += 1
        else:
            found[index] = sample
    return [found[index] for index in sorted(found)], skipped


def _digest(contents: Iterable[bytes], labels: torch.Tensor | None) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return digest.hexdigest()
