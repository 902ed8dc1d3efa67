"""What tests of several commands share."""

from contextlib import nullcontext

import pytest


@pytest.fixture
def started(monkeypatch, cluster):
    """Have commands find the nodes already started; return the options they asked for."""
    asked = []

    def give(nodes, **options):
        asked.append({"nodes": nodes, **options})
        return nullcontext(cluster)

    monkeypatch.setattr("prism.api.open.local_cluster", give)
    return asked
