"""Labs for tests: where rights allow."""

import contextlib
import os
from pathlib import Path

import pytest
from bench.lab import namespaces
from bench.lab.forwarder import PYTHON, C, compiler
from bench.lab.quota import cpu_groups
from bench.lab.shape import namespace_of
from bench.lab.state import ROOT

from prism.errors import PrismError


@pytest.fixture(scope="session")
def rights():
    """Skip, saying why, where no lab can be brought up."""
    name = namespace_of(f"try-{os.getpid()}", "board1")
    try:
        namespaces.check_rights()
        try:
            namespaces.add(name)
        finally:
            with contextlib.suppress(PrismError):
                namespaces.remove(name)
    except PrismError as error:
        pytest.skip(str(error))


@pytest.fixture(params=[C, PYTHON])
def forwarder(request, rights):
    """Each of the forwarders that this machine can run."""
    if request.param == C and compiler() is None:
        pytest.skip("there is no C compiler")
    return request.param


@pytest.fixture
def nothing_left(rights):
    """Return what says whether anything of a lab is left on this machine."""

    def check(name):
        spaces = namespaces.ip("netns", "list")
        groups = []
        with contextlib.suppress(PrismError):
            _, directory = cpu_groups(Path("/proc/self/mounts").read_text())
            groups = list(directory.glob(namespace_of(name, "*")))
        return namespace_of(name, "") not in spaces and not (ROOT / name).exists() and not groups

    return check
