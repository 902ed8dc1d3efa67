"""Tiny models, made once."""

import pytest
from tests.fidelity.models import saved


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    """Return a function that gives the tiny model of a family, and the same one again."""
    made = {}

    def give(name, **changes):
        key = (name, str(changes))
        if key not in made:
            made[key] = saved(tmp_path_factory.mktemp(name), name, **changes)
        return made[key]

    return give
