"""Plain transformers, one operation after the other: what every other backend is compared with."""

from __future__ import annotations

from prism.models.backends.base import Call
from prism.models.load import LoadedModel


class EagerBackend:
    """The transformers model itself, for every model and precision; see `Backend`."""

    name = "eager"
    hooked = True

    def obstacle(self, loaded: LoadedModel) -> str:
        """Return nothing: it always runs."""
        return ""

    def prepare(self, loaded: LoadedModel) -> Call:
        """Return the model itself."""
        return loaded.model
