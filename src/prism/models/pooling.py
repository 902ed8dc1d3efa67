"""One vector per sample from the rows of its real tokens, whole or in parts that lie apart.

Every way to pool but `max` is a weighted sum over positions. The weights follow from the mask
alone, which every node has, so each node sums its own positions and nothing but the sums travels.
Weights already hold the divisor: a part is no larger than the rows, and fits into half precision.

Source: the pooling modes of sentence-transformers (Reimers and Gurevych, "Sentence-BERT", 2019).
"""

from __future__ import annotations

import torch
from torch.nn import functional

from prism.partition.spans import Span


class Pooling:
    """How the rows of one request become one vector per sample.

    Args:
        modes: of `output_form.MODES`; the vectors of several follow each other.
        normalise: whether the result is brought to length 1.
        real_BN: True where a token is real; None when all are.

    Attributes:
        modes: the same.
    """

    def __init__(
        self, modes: tuple[str, ...], normalise: bool, real_BN: torch.Tensor | None
    ) -> None:
        self.modes = modes
        self._normalise = normalise
        self._real_BN = real_BN

    def whole(self, rows_BND: torch.Tensor) -> torch.Tensor:
        """Pool the rows of all positions, or of the first ones if no other counts: `(B, M * D)`."""
        length = rows_BND.shape[1]
        return self.join(self.part(rows_BND, Span(0, length), length))

    def part(self, rows_BnD: torch.Tensor, span: Span, length: int) -> torch.Tensor:
        """Return what the positions of `span` contribute, `(B, M, D)` of float32, a row per mode.

        Args:
            rows_BnD: the last hidden state there.
            span: which positions they are.
            length: N, all positions of the sample.
        """
        rows_BnD = rows_BnD.float()
        real_BN = torch.ones(1, length, dtype=torch.bool, device=rows_BnD.device)
        if self._real_BN is not None:
            real_BN = self._real_BN.to(rows_BnD.device)
        own = slice(span.start, span.stop)
        padded_Bn1 = ~real_BN[:, own, None]
        parts = []
        for mode in self.modes:
            if mode == "max":
                part_BD = rows_BnD.masked_fill(padded_Bn1, float("-inf")).amax(1)
            else:
                weighted_BnD = rows_BnD * _weights(mode, real_BN)[:, own, None]
                # A padded row counts for nothing, even if it is no number.
                part_BD = weighted_BnD.masked_fill(padded_Bn1, 0.0).sum(1)
            parts.append(part_BD)
        return torch.stack(parts, dim=1)

    def join(self, parts_BpD: torch.Tensor) -> torch.Tensor:
        """Return `(B, M * D)` of float32 from the parts of all spans, joined along dim 1."""
        batch, rows, width = parts_BpD.shape
        modes = len(self.modes)
        by_span = parts_BpD.reshape(batch, rows // modes, modes, width)
        pooled = [
            by_span[:, :, index].amax(1) if mode == "max" else by_span[:, :, index].sum(1)
            for index, mode in enumerate(self.modes)
        ]
        joined = torch.cat(pooled, dim=-1)
        return functional.normalize(joined, dim=-1) if self._normalise else joined

    def needs_first_row_only(self) -> bool:
        """Return whether the rows behind the first count for nothing in this request."""
        starts_real = self._real_BN is None or bool(self._real_BN[:, 0].all())
        return self.modes == ("cls",) and starts_real


def _weights(mode: str, real_BN: torch.Tensor) -> torch.Tensor:
    """Return what each position weighs, `(B, N)` of float32; a sample without tokens gets zeros."""
    weights_BN = real_BN.float()
    if mode == "cls":  # the first real token
        return weights_BN * (weights_BN.cumsum(1) == 1)
    if mode == "lasttoken":
        return weights_BN * (weights_BN.flip(1).cumsum(1).flip(1) == 1)
    if mode == "weightedmean":
        weights_BN = weights_BN * torch.arange(1, real_BN.shape[1] + 1, device=real_BN.device)
    total_B1 = weights_BN.sum(1, keepdim=True).clamp(min=1.0)
    return weights_BN / (total_B1.sqrt() if mode == "mean_sqrt_len_tokens" else total_B1)
