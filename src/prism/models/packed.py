"""Matrix products whose weights lie in memory as the CPU's kernels read them.

torch lays a weight out anew in every call. Done once, products are faster by 5 to 30 %, those of
few rows most: partitions and means have few. In bfloat16 the result is the same to the last bit, in
float32 it differs by rounding, since another library computes it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def can_pack(device: torch.device) -> bool:
    """Return whether torch has these kernels for a device."""
    return (
        device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


class PackedLinear(nn.Module):
    """What `nn.Linear` computes: from `(..., in)` to `(..., out)`, in the dtype of the weight.

    Args:
        weight_OI: of a Linear, float32 or bfloat16, on a CPU that `can_pack`.
        bias_O: likewise, or None.

    Attributes:
        in_features, out_features: as those of a Linear.
        nbytes: of weight and bias.
    """

    def __init__(self, weight_OI: torch.Tensor, bias_O: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight_OI.shape
        self.nbytes = weight_OI.nbytes + (0 if bias_O is None else bias_O.nbytes)
        self._bias_O = bias_O
        self._packed: Any = torch.ops.mkldnn._reorder_linear_weight(weight_OI, None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `x @ weight.T + bias`."""
        if not x.numel():  # the kernels want a row
            return x.new_empty(*x.shape[:-1], self.out_features)
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self._bias_O, "none", [], ""
        )
        return result
