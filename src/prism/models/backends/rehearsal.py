"""Calls of a model in every way that requests will call it, before the first of them comes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
from typing_extensions import override

from prism.models.backends.base import Call
from prism.models.inputs import main_input, prepare
from prism.models.instrument import attached
from prism.models.load import LoadedModel
from prism.models.synthetic import lengths_of, synthetic_inputs
from prism.partition.forward_pass import ForwardPass, Standardise

_LONGEST = 64
# One sample, and several: a number that no other size is likely to have, since the compiler takes
# sizes that are equal for one and the same.
_BATCHES = (1, 3)


def sample_inputs(loaded: LoadedModel, batch: int, *, padded: bool = False) -> dict[str, Any]:
    """Return inputs such as requests bring, on the model's device.

    Args:
        loaded: the model.
        batch: samples.
        padded: for text: the last sample ends early.
    """
    info = loaded.info
    length = min(_LONGEST, *lengths_of(info))
    inputs = dict(synthetic_inputs(info, batch, length))
    if main_input(info) == "input_ids":
        mask = torch.ones_like(inputs["input_ids"])
        if padded:
            mask[-1, length // 2 + 1 :] = 0
        inputs["attention_mask"] = mask
    return prepare(info, inputs, loaded.model)


def rehearse(loaded: LoadedModel, call: Call) -> None:
    """Run whole batches and parts of a sequence, of one and of several samples and rows."""
    masked = (False, True) if main_input(loaded.info) == "input_ids" else (False,)
    with torch.inference_mode():
        # Twice: once a part has split a block's code at its attention, whole batches run the split
        # code too.
        for batch, padded in 2 * tuple(product(_BATCHES, masked)):
            inputs = sample_inputs(loaded, batch, padded=padded)
            call(**inputs)
            _rehearse_part(loaded, call, inputs)


def _rehearse_part(loaded: LoadedModel, call: Call, inputs: Mapping[str, Any]) -> None:
    family = loaded.info.family
    for last_rows in (None, 1):
        forward_pass = _Part(loaded.info.shape.blocks, last_rows)
        with attached(loaded.model, family, forward_pass):
            call(**inputs)


class _Part(ForwardPass):
    """The first half of a sequence, on its own; of the last block, perhaps, the first row only."""

    standardised = False

    def __init__(self, blocks: int, last_rows: int | None) -> None:
        self._last = blocks - 1
        self._last_rows = last_rows

    @override
    def enter(self, hidden_BND: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        self._length = hidden_BND.shape[1]
        self._own = (self._length + 1) // 2
        self._context = hidden_BND[:, self._own :].contiguous()
        return hidden_BND[:, : self._own].contiguous()

    @override
    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        return x.narrow(dim, 0, self._own)

    @override
    def before_block(
        self, index: int, hidden_BnD: torch.Tensor, standardise: Standardise
    ) -> torch.Tensor:
        return hidden_BnD[:, : self._last_rows] if index == self._last else hidden_BnD

    @override
    def context(self, index: int) -> torch.Tensor | None:
        return self._context

    @override
    def keyed_context(
        self, index: int, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        return None

    @override
    def replaces_own_keys(self, index: int) -> bool:
        return False

    @override
    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        return None

    @override
    def leave(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        return hidden_BnD
