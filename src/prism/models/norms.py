"""A block's first normalisation in two steps: the affine-free part, and the affine part.

Cluster Means are taken between the two: the affine part and the projections are linear, so what a
receiver makes of such a mean is exactly the average of the group's keys and values.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import layer_norm

from prism.errors import UnsupportedModel


class SplitNorm:
    """One normalisation, whole and as two steps: `affine(standardise(x))` equals `whole(x)`.

    Args:
        norm: a LayerNorm, an RMSNorm, or what changes nothing (None, `nn.Identity`).

    Attributes:
        module: the normalisation; None where nothing is changed.

    Raises:
        UnsupportedModel: it is none of these.
    """

    def __init__(self, norm: Any) -> None:
        self.module = None if isinstance(norm, nn.Identity) else norm
        self._centred = isinstance(norm, nn.LayerNorm)
        eps = getattr(norm, "eps", getattr(norm, "variance_epsilon", None))
        if self.module is not None and not self._centred and not _is_rms_norm(norm):
            raise UnsupportedModel(
                f"{type(norm).__name__} before a block is neither LayerNorm nor RMSNorm"
            )
        self._eps = torch.finfo(torch.float32).eps if eps is None else float(eps)

    def whole(self, x_BnD: torch.Tensor) -> torch.Tensor:
        """Return what the module itself makes of a block's input."""
        return x_BnD if self.module is None else self.module(x_BnD)

    def standardise(self, x_BnD: torch.Tensor) -> torch.Tensor:
        """Return (x - mean) / std, x / rms, or x itself, over the last dimension."""
        if self.module is None:
            return x_BnD
        if self._centred:
            return layer_norm(x_BnD, x_BnD.shape[-1:], eps=self._eps)
        wide = x_BnD.float()
        scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self._eps)
        return (wide * scale).to(x_BnD.dtype)

    def affine(self, y_BnD: torch.Tensor) -> torch.Tensor:
        """Return y times the weight, plus the bias where there is one."""
        if self.module is None or self.module.weight is None:
            return y_BnD
        bias = getattr(self.module, "bias", None)
        weight = self.module.weight
        return y_BnD * weight if bias is None else torch.addcmul(bias, y_BnD, weight)


def _is_rms_norm(norm: Any) -> bool:
    return type(norm).__name__.endswith("RMSNorm") and hasattr(norm, "weight")
