"""What makes a loaded model callable: plain transformers now, compilers and other runtimes later.

A backend is chosen by name. What it returns is called like the model itself; a backend that splits
sequences must honour the hooks of `models.instrument`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prism.models.load import LoadedModel


class Backend(Protocol):
    """One way to run a loaded model.

    Attributes:
        name: as configurations and identities write it.
        hooked: whether what it prepares runs the model's own blocks, so that their hooks work.
    """

    name: str
    hooked: bool

    def prepare(self, loaded: LoadedModel) -> Callable[..., Any]:
        """Return what runs the model: takes its inputs by name, returns its usual output.

        Called once per loaded model. The precision is that of the loaded weights.
        """


class EagerBackend:
    """Plain transformers, one operation after the other."""

    name = "eager"
    hooked = True

    def prepare(self, loaded: LoadedModel) -> Callable[..., Any]:
        """Return the transformers model itself; see `Backend.prepare`."""
        return loaded.model


EAGER = EagerBackend()
BACKENDS: Mapping[str, Backend] = {backend.name: backend for backend in (EAGER,)}
