"""What every backend offers, and how one says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from prism.models.load import LoadedModel

Call = Callable[..., Any]
"""Takes a model's inputs by name, as tensors; returns the model's usual output."""


class Backend(Protocol):
    """One way to run a loaded model.

    Attributes:
        name: as configurations and identities write it.
        hooked: whether what it prepares runs the model's own blocks, so that their hooks work:
            giving up between blocks, sequence plans, rows that arrive later. Where it does not,
            those run the model itself.
    """

    @property
    def name(self) -> str: ...  # noqa: D102 - see the class

    @property
    def hooked(self) -> bool: ...  # noqa: D102 - see the class

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return why this model cannot run so here, at its precision; empty if nothing is known.

        One sentence with the way out. Quick: nothing is converted to find out.
        """

    def prepare(self, loaded: LoadedModel) -> Call:
        """Return what runs the model, at the precision of the loaded weights.

        Slow for all but `eager`: called once, when a model is loaded. The model stays as it is.

        Raises:
            UnsupportedPrecision: there is an obstacle, or the backend fails on this model.
        """


def name_of(loaded: LoadedModel) -> str:
    """Return how errors call a model."""
    return loaded.info.source or type(loaded.model).__name__
