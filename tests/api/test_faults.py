"""Nodes that really die and freeze; the same request is answered all the same.

One cluster on an emulated slow link, on whose air it is seen how far a request is. After every test
the dead are started again by hand, which is a test of its own.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.air import Air, once
from tests.machines import alone, close, exists, pixels, tiny_vit, until

import prism
from prism.errors import ClusterError

ALL = ("node0", "node1", "node2")
LATENCY_S = 0.1


class Fleet:
    def __init__(self, cluster, vit):
        self.cluster, self.vit, self.model = cluster, vit, cluster.load(vit)
        self.commands = {
            name: Path(f"/proc/{cluster.pid(name)}/cmdline").read_bytes().split(b"\0")[:-1]
            for name in ALL
        }
        command = self.commands[ALL[0]]
        self.air = Air(command[command.index(b"--medium") + 1].decode(), ALL)
        self.restarted = []

    def ask(self, plan, batch, seed=0):
        """Run a request and check its answer; return its record."""
        x = pixels(batch, seed)
        output = self.model(plan=plan, pixel_values=x)
        assert close(output.logits, alone(self.vit, pixel_values=x).logits)
        return self.model.last_record

    def signal(self, name, number):
        os.kill(self.cluster.pid(name), number)

    def revive(self):
        for name in ALL:
            if name in self.cluster.nodes:
                continue
            pid = self.cluster.pid(name)
            if exists(pid):
                os.kill(pid, signal.SIGCONT)
            else:
                self.restarted.append(
                    subprocess.Popen(
                        self.commands[name],
                        stdout=subprocess.DEVNULL,
                        stderr=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
        assert until(lambda: self.model.nodes == ALL, timeout_s=60.0)


@pytest.fixture(scope="module")
def shared_fleet():
    with prism.local_cluster(nodes=3, threads=1, link="2mbit,100ms") as cluster:
        fleet = Fleet(cluster, tiny_vit())
        yield fleet
    for process in fleet.restarted:
        process.wait(10.0)


@pytest.fixture
def fleet(shared_fleet):
    """All nodes alive, with the model."""
    shared_fleet.revive()
    for plan in ("seq:3:full", "batch:3"):
        assert shared_fleet.ask(plan, 3).outcome == "ok"
    yield shared_fleet
    for name in ALL:
        if exists(shared_fleet.cluster.pid(name)):
            shared_fleet.signal(name, signal.SIGCONT)


def test_helpers_killed_between_requests_and_during_one(fleet):
    fleet.signal("node2", signal.SIGKILL)
    record = fleet.ask("seq:3:full", 2)
    assert (record.outcome, str(record.plan)) == ("recovered", "seq:2:full")
    assert fleet.cluster.nodes == ("node0", "node1")
    assert fleet.ask("seq:2:full", 2).outcome == "ok"
    assert fleet.ask("local@node2", 2).outcome == "recovered"
    assert str(fleet.ask("seq:3:L2", 2).plan) == "local@node0"  # nobody measured seq:2:L2
    # Its input alone needs more than half a second on this link.
    with once(fleet.air.is_sent_something("node1"), fleet.signal, "node1", signal.SIGKILL):
        record = fleet.ask("batch:2", 24)
    assert (record.outcome, str(record.plan)) == ("recovered", "local@node0")
    assert fleet.cluster.nodes == ("node0",)


def test_nodes_killed_in_the_middle_of_an_exchange_the_first_one_too(fleet):
    # A helper of a sequence plan sends nothing but what it exchanges.
    with once(fleet.air.sends("node1"), fleet.signal, "node1", signal.SIGKILL):
        record = fleet.ask("seq:3:full", 9)
    assert record.outcome == "recovered"
    assert str(record.plan) == "seq:node0+node2:full"
    assert fleet.cluster.nodes == ("node0", "node2")
    with once(fleet.air.sends("node2"), fleet.signal, "node0", signal.SIGKILL):
        record = fleet.ask("seq:2:full", 9)
    assert (record.outcome, record.node) == ("recovered", "node2")
    assert fleet.cluster.nodes == ("node2",)
    assert fleet.ask(None, 2).node == "node2"


@pytest.mark.parametrize("plan", ["seq:3:full", "batch:3"])
def test_a_frozen_helper_is_given_up_and_comes_back_by_itself(fleet, plan):
    begun = time.monotonic()
    fleet.signal("node2", signal.SIGSTOP)
    assert fleet.ask(plan, 3).outcome == "recovered"
    assert time.monotonic() - begun < 20.0  # a first run would be given 30 s
    assert until(lambda: "node2" not in fleet.cluster.nodes)
    assert fleet.ask("seq:2:full", 2).outcome == "ok"
    fleet.signal("node2", signal.SIGCONT)
    assert until(lambda: fleet.cluster.nodes == ALL)
    for turn, again in enumerate(("seq:3:full", "batch:3", "local@node2", "seq:node2+node0:full")):
        assert fleet.ask(again, 3, seed=turn).outcome == "ok"


def test_a_helper_that_stumbles_does_no_harm(fleet):
    for turn in range(3):
        fleet.signal("node1", signal.SIGSTOP)
        has_its_input = fleet.air.has_got_something("node1", LATENCY_S)
        with once(has_its_input, fleet.signal, "node1", signal.SIGCONT):
            fleet.ask(("seq:3:full", "batch:3", "local@node1")[turn], 3, seed=turn)
    assert until(lambda: fleet.cluster.nodes == ALL)
    assert fleet.ask("seq:3:full", 2).outcome == "ok"


def test_when_nobody_is_left_the_error_says_so(fleet):
    for name in ALL:
        fleet.signal(name, signal.SIGKILL)
    for plan in ("seq:3:full", "local"):
        with pytest.raises(ClusterError, match="no node"):
            fleet.ask(plan, 1)
    assert fleet.cluster.nodes == ()
