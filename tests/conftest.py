"""What holds for every test: no network, no timing in hypothesis, whole files for each worker."""

import os
from pathlib import Path

import hypothesis
import pytest

# Before anything imports huggingface_hub, which reads it once.
os.environ["HF_HUB_OFFLINE"] = "1"

# Workers share the cores; threads of torch that wait for each other on taken cores take longer
# than one alone. Before anything imports torch.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A deadline per example measures the load of the machine, not the code. CI judges a change, so it
# tries the same examples every time; everybody else's runs look for new ones.
hypothesis.settings.register_profile("prism", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("prism")

_TESTS = Path(__file__).parent
# Folders that use what is there only once: the kernel's tables of namespaces and of addresses.
_TOGETHER = ("bench/lab",)
# Folders whose files take longest, waiting for processes: begun first, so that no worker is left
# alone with one of them at the end.
_FIRST = (
    "cli",
    "api",
    "server",
    "packaging",
    "launch",
    "node",
    "bench/lab",
    "distributed",
    "fidelity",
)


@pytest.hookimpl(tryfirst=True)  # xdist looks for the groups in the same hook
def pytest_collection_modifyitems(config, items):
    """Have each of several workers run whole files, the longest first."""
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group_of(item.path)))
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: _turn_of(item.path))


def _group_of(path):
    folder = _folder_of(path)
    return folder if folder in _TOGETHER else path.relative_to(_TESTS).as_posix()


def _turn_of(path):
    folder = _folder_of(path)
    return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)


def _folder_of(path):
    return path.relative_to(_TESTS).parent.as_posix()
