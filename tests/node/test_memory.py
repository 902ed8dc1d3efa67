"""What a model took is given back when it is unloaded."""

import os
from pathlib import Path

from tests.node.stand_in import big_pixels

from prism.control import messages as control

MODEL_BYTES = 80e6  # random:vit-small has 22 million weights of 4 bytes
# The allocator keeps the unused end of a thread's heap, now and then.
KEPT_BYTES = 40e6
TIMES = 6


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_does_not_grow_with_models_loaded_run_and_unloaded(site):
    coordinator, pid = site.coordinator, site.processes["a"].pid
    loaded, unloaded = [], []
    for _ in range(TIMES):
        coordinator.loaded("a", "random:vit-small", 3)
        coordinator.output(coordinator.run(["a"], "local", big_pixels(1), model=3))
        loaded.append(resident_bytes(pid))
        coordinator.send("a", control.Unload(model=3))
        # Loads and unloads are done in order: once this has failed, that one is done.
        coordinator.failure(coordinator.load("a", site.path / "nothing", 99))
        unloaded.append(resident_bytes(pid))
    assert min(loaded) - min(unloaded) > MODEL_BYTES
    assert max(unloaded[1:]) - unloaded[0] < KEPT_BYTES, unloaded
