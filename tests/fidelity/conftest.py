"""Tiny models, made once."""

import pytest
from tests.fidelity.models import saved
from tests.fidelity.tuning import save_small_model

from prism.models.load import load


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


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The directory of a small classifier to fine-tune."""
    folder = tmp_path_factory.mktemp("source")
    save_small_model(folder)
    return folder


@pytest.fixture
def loaded(source):
    """That classifier."""
    return load(str(source))
