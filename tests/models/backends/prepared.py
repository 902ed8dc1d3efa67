"""Models made callable for tests; skips what is not installed, saying so."""

import pytest

from prism.models.backends import BACKENDS
from prism.models.precision import at_precision


def prepared(name, loaded):
    """Return what a backend makes of a model; skip where it is not there, saying why."""
    backend = BACKENDS[name]
    needs = backend.obstacle(loaded)
    if "install" in needs or "no half precision" in needs:
        pytest.skip(needs)
    return backend.prepare(loaded)


def at_half(loaded):
    """Return a copy in bfloat16, on every processor."""
    return at_precision(loaded, "half", emulate=True)
