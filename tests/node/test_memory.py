"""What a model took is given back when it is unloaded."""

import os
from pathlib import Path

from tests.node.stand_in import StandIn, big_pixels

from prism.control import messages as control

MODEL_BYTES = 80e6  # random:vit-small has 22 million weights of 4 bytes
SLACK_BYTES = 25e6


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow_with_models_loaded_run_and_unloaded(lone_site):
    coordinator = StandIn(lone_site.secret)
    pid = lone_site.start("a", coordinator.endpoint).pid
    coordinator.wait_for("a")
    without = []
    for model in range(1, 7):
        coordinator.loaded("a", "random:vit-small", model)
        coordinator.output(coordinator.run(["a"], "local", big_pixels(1), model=model))
        loaded = resident_bytes(pid)
        coordinator.send("a", control.Unload(model=model))
        # Loads and unloads are done in order: once this has failed, that one is done.
        coordinator.failure(coordinator.load("a", lone_site.path / "nothing", 99))
        without.append(resident_bytes(pid))
        assert loaded - without[-1] > MODEL_BYTES
    assert max(without[1:]) - without[0] < SLACK_BYTES, without
    coordinator.close()
