"""What is told to the kernel and to a forwarder, as text; no rights needed."""

from pathlib import Path

import pytest
from bench.lab.forwarder import PYTHON, C, Forwarder, segments_at_once
from bench.lab.media import CHOICES, NETEM, choose, medium_of
from bench.lab.netem import Netem, netem_arguments
from bench.lab.operations import command_on
from bench.lab.quota import cpu_groups, group_of_process, limits
from bench.lab.shape import Link, boards_of
from bench.lab.state import LabState

from prism.errors import ConfigError

FIRST = "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n"
SECOND = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"
OTHERS = "tmpfs /run tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n"


def test_a_forwarder_is_told_the_link_in_its_units_and_the_namespaces_in_order():
    lab = Forwarder(C, "x", boards_of(2), Path("/there"), watched=True, offload=True)
    assert lab.arguments(Link(20e6, 5e-3, loss=0.001, shared=True)) == [
        *("/there/control", "1", "20000000", "5000000", "1000", "1"),
        *("/run/netns/prism-x-board1", "/run/netns/prism-x-board2"),
    ]


def test_what_is_handed_over_at_once_takes_about_a_millisecond_and_at_most_64_kilobytes():
    rates_bps = (1e6, 20e6, 100e6, 500e6, 1e11)
    assert [segments_at_once(Link(rate_bps)) for rate_bps in rates_bps] == [1, 2, 10, 43, 43]


def test_netem_is_told_rate_delay_loss_and_how_much_may_wait():
    link = Link(100e6, 3e-3, loss=0.001)
    words = ["netem", "rate", "100000000bit", "limit", "858", "delay", "3000us", "loss", "0.1%"]
    assert netem_arguments(link) == words
    # Delay and loss are met once on the way, the rate at both ends.
    assert netem_arguments(link, delayed=False) == ["netem", "rate", "100000000bit", "limit", "833"]


def test_a_medium_is_that_of_the_state():
    state = LabState("x", NETEM, Link(), boards_of(2))
    assert isinstance(medium_of(state), Netem)
    assert medium_of(LabState("x", PYTHON, Link(), boards_of(2))).kind == PYTHON
    with pytest.raises(ConfigError, match="auto, netem, c, python"):
        choose("vde", shared=False)
    with pytest.raises(ConfigError, match="switch only"):
        choose(NETEM, shared=True)
    assert choose(PYTHON, shared=True) == PYTHON
    assert PYTHON in CHOICES


def test_a_program_runs_in_the_boards_namespace_on_its_cores():
    state = LabState("x", C, Link(), boards_of(2, cores=[[0], [1, 3]]))
    assert command_on(state, "board2", ["prism", "node"]) == [
        *("ip", "netns", "exec", "prism-x-board2"),
        *("taskset", "--cpu-list", "1,3", "prism", "node"),
    ]
    with pytest.raises(ConfigError, match="board1, board2"):
        command_on(state, "board3", ["true"])


def test_a_quota_is_written_as_the_kernel_of_each_version_reads_it():
    assert cpu_groups(OTHERS + SECOND + FIRST) == (1, Path("/sys/fs/cgroup/cpu,cpuacct"))
    assert cpu_groups(OTHERS + SECOND) == (2, Path("/sys/fs/cgroup"))
    with pytest.raises(ConfigError, match="leave --cpu out"):
        cpu_groups(OTHERS)
    assert limits(1, 0.4) == {"cpu.cfs_period_us": "10000", "cpu.cfs_quota_us": "4000"}
    assert limits(2, 2) == {"cpu.max": "20000 10000"}
    # The kernel takes no quota below 1 ms.
    assert limits(2, 0.01) == {"cpu.max": "1000 100000"}


def test_the_group_a_process_comes_from_is_found():
    memberships = "4:memory:/a\n1:cpu,cpuacct:/b\n0::/c/d\n"
    assert group_of_process(1, memberships) == "b"
    assert group_of_process(2, memberships) == "c/d"
    assert group_of_process(1, "0::/c\n") == ""
