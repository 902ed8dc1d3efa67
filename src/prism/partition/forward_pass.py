"""What one partitioned forward pass offers to an instrumented model.

The instrumentation (`models.instrument`) knows where a model's blocks and projections are; a
`ForwardPass` knows which rows are ours, what the others' rows look like from here, and how to get
them. Neither sees the other's inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch

Standardise = Callable[[torch.Tensor], torch.Tensor]
"""The affine-free part of a block's first normalisation, position by position."""


class ForwardPass(Protocol):
    """One forward pass under one plan, as seen from one place.

    Attributes:
        standardised: whether `context` returns rows that lack only the affine part of the block's
            first normalisation; else they are rows of block inputs.
    """

    standardised: bool

    def enter(self, hidden_BND: torch.Tensor, standardise: Standardise) -> torch.Tensor:
        """Take the input of block 0 and return the rows `(B, n, D)` computed here.

        Args:
            hidden_BND: all positions; those whose input is not here are meaningless.
            standardise: see `Standardise`.
        """

    def slice_positions(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Return the own positions of something indexed by position along `dim`."""

    def before_block(
        self, index: int, hidden_BnD: torch.Tensor, standardise: Standardise
    ) -> torch.Tensor:
        """See the input of block `index` > 0, start its exchange, return the rows to query with.

        Raises:
            PassComplete: nothing of this place is needed from here on.
        """

    def context(self, index: int) -> torch.Tensor | None:
        """Return rows `(B, C, D)` to attend to besides the own keys.

        They still need the block's projections, and its normalisation or (`standardised`) only the
        affine part of it. None: no further row.
        """

    def keyed_context(
        self, index: int, key_BGnd: torch.Tensor, value_BGnd: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Exchange projected, rotated keys and values; return those `(B, G, C, d)` of others."""

    def replaces_own_keys(self, index: int) -> bool:
        """Return whether `context(index)` already holds the own rows."""

    def bias(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        """Return the attention bias of the own keys and the context last returned.

        Args:
            mask: the one that the model would have used on all positions.
        """

    def leave(self, hidden_BnD: torch.Tensor) -> torch.Tensor:
        """Take the output of the last block and return the rows the model head needs.

        Raises:
            PassComplete: this place is not rank 0; its part is done.
        """


class PassComplete(Exception):  # noqa: N818 - not an error: it unwinds a helper's forward pass
    """A helper has done its part; the model head runs elsewhere."""
