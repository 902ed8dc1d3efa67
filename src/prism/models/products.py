"""The matrix products of a model's blocks: almost all of its weights, and of its time."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from prism.models.load import LoadedModel
from prism.models.sites import sites_of


def products_of(loaded: LoadedModel) -> list[Any]:
    """Return the modules in the blocks that multiply by a weight, each once."""
    blocks = [site.block for site in sites_of(loaded.info.family, loaded.model)]
    found = (module for block in blocks for module in block.modules())
    return [module for module in found if isinstance(module, nn.Linear | Conv1D)]


def weight_and_bias(module: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weight `(out, in)` and the bias `(out,)` of a product; not copies where possible.

    GPT-2's Conv1D keeps its weight the other way round.
    """
    weight = module.weight.detach()
    weight_OI = weight.T.contiguous() if isinstance(module, Conv1D) else weight
    return weight_OI, None if module.bias is None else module.bias.detach()
