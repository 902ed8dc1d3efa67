"""Pooling over the positions of a sequence plan: every rank pools its own, rank 0 joins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from typing_extensions import override

from prism.engine.sequence import SequencePass
from prism.models.load import ModelInfo
from prism.models.outputs import Reduction
from prism.output_form import OutputForm


class PooledParts(Reduction):
    """A `Reduction` for one rank, to whose model the pass left this rank's rows only.

    What follows a model's blocks works position by position, so each rank's model applies it to its
    own rows, and what travels to rank 0 is one row per way to pool.

    Args:
        info: the model.
        form: `pooled`, not by the model itself.
        inputs: of the request, checked.
        forward_pass: the rank's; its rows stay.
    """

    def __init__(
        self,
        info: ModelInfo,
        form: OutputForm,
        inputs: Mapping[str, Any],
        forward_pass: SequencePass,
    ) -> None:
        super().__init__(info, form, inputs)
        self._pass = forward_pass

    @override
    def __call__(self, output: Any) -> torch.Tensor:
        """Return the embeddings, on rank 0.

        Raises:
            PassComplete: this place is not rank 0; its part is done.
        """
        assert self.pooling is not None
        part_BMD = self.pooling.part(self.hidden(output), self._pass.own, self._pass.length)
        return self.pooling.join(self._pass.gather(part_BMD))
