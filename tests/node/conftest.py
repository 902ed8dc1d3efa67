import pytest
from tests.machines import secret_at, start_node, tiny_vit
from tests.node.stand_in import NODES, StandIn

from prism.control import keys


class Site:
    """Two node processes, and the coordinator they have joined."""

    def __init__(self, path):
        self.path = path
        self.key = secret_at(path / "cluster.key")
        self.secret = keys.read(self.key)
        self.processes = {}
        self.vit = tiny_vit()
        self.model = path / "vit"
        self.vit.save_pretrained(self.model)

    def start(self, name, endpoint, *options):
        log = self.path / f"{name}.log"
        process = start_node(log, name, endpoint, self.key, *options)
        self.processes[name] = process
        return process

    def log(self, name):
        return (self.path / f"{name}.log").read_text()

    def end(self):
        for process in self.processes.values():
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory):
    site = Site(tmp_path_factory.mktemp("site"))
    site.coordinator = StandIn(site.secret)
    for name in NODES:
        site.start(name, site.coordinator.endpoint)
    site.coordinator.wait_for(*NODES)
    yield site
    site.end()
    site.coordinator.close()


@pytest.fixture
def site(shared_site):
    """Two nodes with the tiny model as number 1, and nothing under way."""
    for name in NODES:
        shared_site.coordinator.loaded(name, shared_site.model)
    return shared_site


@pytest.fixture
def lone_site(tmp_path):
    """Processes and coordinators of one test only."""
    site = Site(tmp_path)
    yield site
    site.end()
