"""What a backend raises on a model becomes one sentence that names both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prism.errors import PrismError, UnsupportedPrecision
from prism.models.backends.base import Backend, name_of
from prism.models.load import LoadedModel


@contextmanager
def named_failure(backend: Backend, loaded: LoadedModel) -> Iterator[None]:
    """Prepare or try a model in here.

    Raises:
        UnsupportedPrecision: for an obstacle, and for whatever the backend raises.
    """
    obstacle = backend.obstacle(loaded)
    if obstacle:
        raise UnsupportedPrecision(obstacle)
    try:
        yield
    except PrismError:
        raise
    except Exception as error:
        lines = str(error).strip().splitlines()
        said = f"{type(error).__name__}: {lines[0] if lines else ''}"
        raise UnsupportedPrecision(
            f"{backend.name} cannot run {name_of(loaded)} at {loaded.precision}: {said}; use eager"
        ) from error
