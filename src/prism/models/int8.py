"""Matrix products of 8-bit integers, with torch's own kernels.

Weights are rounded once, per output channel; activations in every call, in one of two ways:

- all rows by one scale, as torch's own dynamic modules do: fastest, enough where rows are alike;
- row by row, each by its own largest value, which takes a sixth longer. The first token of a text
  is so much larger than the others that with one scale it leaves these few steps. What a row
  becomes then depends on no other row: batches and parts of a sequence are rounded like the whole.

Sums are exact, in 32 bits; bias and result are float32.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from prism.models.processor import has

_LARGEST = 127
_TINY = torch.finfo(torch.float32).tiny
_ENGINES = ("onednn", "x86", "fbgemm", "qnnpack")


def engine() -> str:
    """Return the kernels that torch has for this processor; empty where it has none."""
    supported = torch.backends.quantized.supported_engines
    return next((name for name in _ENGINES if name in supported), "")


class Int8Linear(nn.Module):
    """What `nn.Linear` computes, in 8 bits: from `(..., in)` to `(..., out)` of float32.

    Args:
        weight_OI: of a Linear, float32.
        bias_O: likewise, or None.
        by_row: whether each row of the activations has a scale of its own.

    Attributes:
        in_features, out_features: as those of a Linear.
        nbytes: of the rounded weights, their scales and the bias.
    """

    def __init__(
        self, weight_OI: torch.Tensor, bias_O: torch.Tensor | None, *, by_row: bool
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        scale_O = weight_OI.abs().amax(1).clamp_(min=_TINY) / _LARGEST
        zero_O = torch.zeros_like(scale_O, dtype=torch.int64)
        torch.backends.quantized.engine = engine()
        with warnings.catch_warnings():
            # torch wants to drop tensors that carry their scale, but its kernels take no others.
            warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)
            rounded = torch.quantize_per_channel(weight_OI, scale_O, zero_O, 0, torch.qint8)
            # Rows of different scales get the bias once they have the same again.
            inside = None if by_row else bias_O
            self._packed: Any = torch.ops.quantized.linear_prepack(rounded, inside)
        self._bias_O = bias_O
        self._by_row = by_row
        # Without these instructions sums of two products are kept in 16 bits, which full-range
        # activations could overflow.
        self._reduce_range = not (has("avx512_vnni") or has("avx_vnni"))
        self.nbytes = weight_OI.numel() + 8 * scale_O.numel() + 4 * self.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x @ weight.T + bias`."""
        if not x.numel():  # the kernels want a row
            return x.new_empty(*x.shape[:-1], self.out_features)
        if self._by_row:
            return self._rounded_by_row(x)
        result: torch.Tensor = torch.ops.quantized.linear_dynamic(
            x, self._packed, self._reduce_range
        )
        return result

    def _rounded_by_row(self, x: torch.Tensor) -> torch.Tensor:
        rows_RD = x.reshape(-1, self.in_features)
        # Twice as fast as the largest of the absolute values, many times as a norm.
        largest_R1 = torch.maximum(rows_RD.amax(1, keepdim=True), -rows_RD.amin(1, keepdim=True))
        largest_R1.clamp_(min=_TINY)
        # Torch's kernel has one scale for the whole tensor. Two more rows make it the same always.
        scaled_SD = rows_RD.new_empty(len(rows_RD) + 2, self.in_features)
        torch.div(rows_RD, largest_R1, out=scaled_SD[:-2])
        scaled_SD[-2], scaled_SD[-1] = 1.0, -1.0
        result_SO: torch.Tensor = torch.ops.quantized.linear_dynamic(
            scaled_SD, self._packed, self._reduce_range
        )
        if self._bias_O is None:
            result_RO = result_SO[:-2].mul_(largest_R1)
        else:
            result_RO = torch.addcmul(self._bias_O, result_SO[:-2], largest_R1)
        return result_RO.view(*x.shape[:-1], self.out_features)
