"""Matrix products of 8-bit integers, with torch's own kernels.

Weights are rounded once, per output channel and symmetrically; activations in every call, with one
scale for the whole tensor (what torch calls dynamic quantisation). What a row becomes thus depends
a little on the rows computed with it. Sums are exact, in 32 bits; bias and result are float32.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from prism.models.processor import has

_LARGEST = 127
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

    Attributes:
        in_features, out_features: as those of a Linear.
        nbytes: of the rounded weights, their scales and the bias.
    """

    def __init__(self, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        scale_O = weight_OI.abs().amax(1).clamp_(min=torch.finfo(torch.float32).tiny) / _LARGEST
        zero_O = torch.zeros_like(scale_O, dtype=torch.int64)
        torch.backends.quantized.engine = engine()
        with warnings.catch_warnings():
            # torch wants to drop tensors that carry their scale, but its kernels take no others.
            warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)
            rounded = torch.quantize_per_channel(weight_OI, scale_O, zero_O, 0, torch.qint8)
            self._packed: Any = torch.ops.quantized.linear_prepack(rounded, bias_O)
        # Without these instructions sums of two products are kept in 16 bits, which full-range
        # activations could overflow.
        self._reduce_range = not (has("avx512_vnni") or has("avx_vnni"))
        self.nbytes = weight_OI.numel() + 8 * scale_O.numel() + 4 * self.out_features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x @ weight.T + bias`."""
        result: torch.Tensor = torch.ops.quantized.linear_dynamic(
            x, self._packed, self._reduce_range
        )
        return result
