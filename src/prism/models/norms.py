"""A block's first normalisation in two steps: the affine-free part, and the affine part.

Cluster Means are taken between the two: the affine part and the projections are linear, so what a
receiver makes of such a mean is exactly the average of the group's keys and values. Rotary families
average keys and values themselves, and need none of this.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import layer_norm

from prism.errors import UnsupportedModel


class SplitNorm:
    """One normalisation, whole and as two steps: `affine(standardise(x))` equals `whole(x)`.

    Args:
        module: a LayerNorm, or None where nothing is normalised.

    Attributes:
        module: the same.

    Raises:
        UnsupportedModel: it is neither.
    """

    def __init__(self, module: nn.Module | None) -> None:
        if module is not None and not isinstance(module, nn.LayerNorm):
            raise UnsupportedModel(
                f"{type(module).__name__} before a block is no LayerNorm, as its family has"
            )
        self.module = module

    def whole(self, x_BnD: torch.Tensor) -> torch.Tensor:
        """Return what the module itself makes of a block's input."""
        if self.module is None:
            return x_BnD
        normed: torch.Tensor = self.module(x_BnD)
        return normed

    def standardise(self, x_BnD: torch.Tensor) -> torch.Tensor:
        """Return (x - mean) / std over the last dimension, or x itself."""
        if self.module is None:
            return x_BnD
        return layer_norm(x_BnD, self.module.normalized_shape, eps=self.module.eps)

    def affine(self, y_BnD: torch.Tensor) -> torch.Tensor:
        """Return y times the weight, plus the bias where there is one."""
        if self.module is None or self.module.weight is None:
            return y_BnD
        if self.module.bias is None:
            return y_BnD * self.module.weight
        return torch.addcmul(self.module.bias, y_BnD, self.module.weight)
