"""Rows that arrive while the first are computed already: they catch up, and all go on together.

A helper of a batch plan need not wait for its last row to begin with its first:

    the first rows run alone; before every block: has the rest arrived? then they stop there
    the rest runs from the start; before that same block: rows = [first ; rest]

From there on it is one batch. What the first rows cost more by running alone is small, and only for
as long as the link would have kept the node waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch

from prism.engine.rows import join_rows
from prism.models.inputs import main_input, records_blocks
from prism.models.instrument import BeforeBlock
from prism.models.load import ModelInfo
from prism.models.own_input import can_be_cut
from prism.partition.forward_pass import PassComplete

Inputs = Mapping[str, Any]


class Rest(Protocol):
    """Rows on their way to this node.

    Attributes:
        rows: how many.
        waited_s: how long this node stood still for them.
    """

    rows: int
    waited_s: float

    @property
    def arrived(self) -> bool:
        """Whether they are here."""

    def take(self) -> Inputs:
        """Return them, once they are here.

        Raises:
            Cancelled: nobody waits for the answer any more.
            DeadlineExceeded: they did not come in time.
        """


def can_catch_up(info: ModelInfo, inputs: Inputs) -> bool:
    """Return whether rows may join others between two blocks of a model.

    Before and behind its blocks a model that reads ids makes masks of all rows, or looks for their
    last tokens; so it does of every input besides the main one. And what a model keeps of several
    blocks would lack rows.
    """
    return can_be_cut(main_input(info)) and len(inputs) == 1 and not records_blocks(info)


class RowsAlone:
    """Lets the first rows compute until the rest is there; then holds what they have become.

    Attributes:
        index: of the block before which they stopped.
        hidden_BND: its input; None while they did not stop.
    """

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self.index = 0
        self.hidden_BND: torch.Tensor | None = None

    def before_block(self, index: int, hidden_BND: torch.Tensor) -> torch.Tensor:
        """Go on, unless the rest is there; before the first block there is nothing to hold yet."""
        if index and self._rest.arrived:
            self.index, self.hidden_BND = index, hidden_BND
            raise PassComplete
        return hidden_BND


def run_arriving(
    forward: Callable[[Inputs, BeforeBlock | None], Any],
    first: Inputs,
    rest: Rest,
    hooked: bool = True,
) -> Any:
    """Return the output of all rows, in the order in which they came.

    Args:
        forward: runs a model on checked inputs; returns None where its blocks were left early.
        first: rows that are here, of inputs that `can_catch_up`.
        rest: the others.
        hooked: whether `forward` can stop between two blocks; else all wait for the last row.
    """
    if not hooked:
        return forward(join_rows([first, rest.take()]), None)
    alone = RowsAlone(rest)
    output = forward(first, alone.before_block)
    others = rest.take()
    held_BND = alone.hidden_BND
    if held_BND is None:  # the rest came after the last block
        return join_rows([output, forward(others, None)])

    def join(index: int, hidden_BND: torch.Tensor) -> torch.Tensor:
        return torch.cat([held_BND, hidden_BND]) if index == alone.index else hidden_BND

    return forward(others, join)
