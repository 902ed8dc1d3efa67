"""Samples of a data set as a model takes them, and how some of many are chosen."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

import torch

Kind = Literal["images", "text", "tokens", "arrays"]
Read = Callable[[Sequence[int]], dict[str, torch.Tensor]]
_Candidate = TypeVar("_Candidate")
_Sample = TypeVar("_Sample")


class Samples:
    """Samples of one data set, read a batch at a time.

    Args:
        name: of the data set, for people.
        kind: `images`, `text` (padded to the longest of a batch), `tokens` (windows of one
            length) or `arrays`.
        contents: what makes each sample what it is, for the digest.
        read: gives the inputs of some samples.
        labels: `(count,)` of int64, classes of the model; None where nobody gave any.
        skipped: files or rows that could not be used.

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
    ) -> None:
        self.name = name
        self.kind = kind
        self.labels = labels
        self.skipped = skipped
        self.digest = _digest(contents, labels)
        self._count = len(contents)
        self._read = read

    def __len__(self) -> int:
        return self._count

    def batch(self, rows: Sequence[int]) -> dict[str, torch.Tensor]:
        """Return the inputs of some samples as a caller gives them to the model, on the CPU.

        Args:
            rows: at least one, each in 0..len - 1.

        Raises:
            RequestError: a file was readable when the data set was opened and is no longer.
        """
        return self._read(rows)


def take(
    candidates: Sequence[_Candidate],
    read: Callable[[_Candidate], _Sample | None],
    limit: int | None,
    seed: int,
) -> tuple[list[_Sample], int]:
    """Read candidates until there are `limit`, or all; return them in order, and how many failed.

    Args:
        candidates: what may become a sample.
        read: gives None for one that cannot be used.
        limit: so many are drawn at random; None or too many = all.
        seed: of the draw.
    """
    order = list(range(len(candidates)))
    if limit is not None:
        random.Random(seed).shuffle(order)
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
