"""One cluster of three real node processes for all tests here."""

import pytest
import torch

import prism


@pytest.fixture(scope="session")
def cluster():
    threads = torch.get_num_threads()
    # As the nodes do: a sum in another order is another number.
    torch.set_num_threads(1)
    with prism.local_cluster(nodes=3, threads=1) as cluster:
        yield cluster
    torch.set_num_threads(threads)
