import pytest
from tests.machines import tiny_vit

import prism


@pytest.fixture(scope="session")
def vit():
    return tiny_vit()


@pytest.fixture(scope="session")
def cluster():
    """Three healthy nodes, shared by all tests that leave them healthy."""
    with prism.local_cluster(nodes=3, threads=1) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def model(cluster, vit):
    return cluster.load(vit)
