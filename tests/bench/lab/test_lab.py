"""A lab that is up: real packets, real programs, and nothing left of it afterwards."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from bench.lab import namespaces
from bench.lab.commands import main
from bench.lab.lab import Lab
from bench.lab.netem import Netem
from bench.lab.quota import CpuQuota
from bench.lab.shape import Link, boards_of, namespace_of
from bench.lab.state import read_state
from tests.machines import until

from prism.errors import ClusterError, ConfigError

ROOT = Path(__file__).parents[3]
FAST = Link(rate_bps=1e9, delay_s=0.0)
PORT = 5010


def test_three_boards_reach_each_other_and_leave_nothing(forwarder, nothing_left):
    with Lab(3, FAST, forwarder=forwarder) as lab:
        assert lab.kind == forwarder
        for source, to in ((0, 1), (1, 2), (2, 0)):
            target = lab.boards[to]
            with lab.network(target.name):
                listener = socket.create_server((target.address, PORT))
            with lab.network(lab.boards[source].name):
                near = socket.create_connection((target.address, PORT), 60)
            with listener, near, listener.accept()[0] as far:
                assert near.getsockname()[0] == lab.boards[source].address
                near.sendall(b"hello")
                assert far.recv(5) == b"hello"
        assert lab.carried.packets > 0 and lab.carried.dropped == 0
        assert not nothing_left(lab.name)
        left_running = lab.start("board3", ["sleep", "1000"])
    assert nothing_left(lab.name)
    assert left_running.poll() is not None


def test_labs_do_not_see_each_other(rights):
    with Lab(2, FAST) as one, Lab(2, FAST) as other:
        assert one.boards[1].address == other.boards[1].address
        with one.network("board2"):
            listener = socket.create_server((one.boards[1].address, PORT))
        with listener, other.network("board1"), pytest.raises(ConnectionRefusedError):
            socket.create_connection((other.boards[1].address, PORT), 60)


def test_a_board_has_its_cores_and_its_share_of_them(rights, nothing_left, tmp_path):
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0), Path("/proc/self/cgroup").read_text()
    try:
        CpuQuota(namespace_of(f"try-{os.getpid()}", "board1"), 0.5).close()
    except ConfigError as error:
        pytest.skip(str(error))
    with Lab(2, FAST, cores=[[core], [core]], cpu=[0.5, 0.2]) as lab:
        show = "import os;print(os.sched_getaffinity(0), open('/proc/self/cgroup').read())"
        log = tmp_path / "log"
        assert lab.start("board2", [sys.executable, "-c", show], log).wait() == 0
        assert f"{{{core}}}" in log.read_text()
        assert namespace_of(lab.name, "board2") in log.read_text()
        with lab.inside("board1"):
            assert os.sched_getaffinity(0) == {core}
            assert namespace_of(lab.name, "board1") in Path("/proc/self/cgroup").read_text()
            with socket.create_server((lab.boards[0].address, PORT)):
                pass
        assert before == (os.sched_getaffinity(0), Path("/proc/self/cgroup").read_text())
    assert nothing_left(lab.name)


def test_a_lab_that_cannot_be_laid_leaves_nothing_and_disturbs_no_other(rights, nothing_left):
    name = f"twice-{os.getpid()}"
    with Lab(2, FAST, name=name):
        with pytest.raises(ConfigError, match=f"down --lab {name}"), Lab(2, FAST, name=name):
            pass
        assert not nothing_left(name)
    name = f"half-{os.getpid()}"
    taken = namespace_of(name, "board2")
    namespaces.add(taken)
    with pytest.raises(ConfigError, match="--link 100mbit"), Lab(2, FAST, name=name):
        pass
    assert nothing_left(name)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_program_that_is_ended(rights, nothing_left, ending):
    code = (
        "import sys, time\n"
        "from bench.lab.lab import Lab\n"
        "from bench.lab.program import run_to_end\n"
        "def run():\n"
        "    with Lab() as lab:\n"
        "        lab.start('board2', ['sleep', '1000'])\n"
        "        print(lab.name, flush=True)\n"
        "        time.sleep(1000)\n"
        "sys.exit(run_to_end(run, 'program'))"
    )
    program = [sys.executable, "-c", code]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        name = process.stdout.readline().strip()
        process.send_signal(ending)
        code = process.wait()
    if ending == signal.SIGKILL:
        assert until(lambda: not forwarders_of(name)), "they end with the program"
        with Lab(2, FAST):  # the next one takes it down
            pass
    else:
        assert code == 130
    assert nothing_left(name)


def forwarders_of(name):
    """Return the processes that name the lab in their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"/{name}/control".encode() in path.read_bytes():
                found.append(path)
    return found


def test_by_hand(rights, nothing_left, capfd):
    name = f"hand-{os.getpid()}"
    lab = ["--lab", name]
    try:
        assert main(["up", *lab, "--nodes", "3", "--rate", "50mbit", "--delay", "1ms"]) == 0
        assert "board3 10.78.0.3; 50mbit,1ms,switched" in capfd.readouterr().out
        assert main(["set", *lab, "--rate", "20mbit", "--loss", "1%"]) == 0
        assert main(["cut", *lab, "board2"]) == 0
        assert read_state(name).link == Link(20e6, 1e-3, loss=0.01)
        assert main(["status"]) == 0
        assert "board2 is cut off" in capfd.readouterr().out
        assert main(["restore", *lab, "board2"]) == 0
        assert not read_state(name).cut
        show = ["ip", "-json", "addr", "show", "dev", "eth0"]
        words = [sys.executable, "-m", "bench.lab", "run", *lab, "board2", "--", *show]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        assert json.loads(done.stdout)[0]["addr_info"][0]["local"] == "10.78.0.2"
        for wrong in (["cut", *lab, "board4"], ["set", *lab], ["run", *lab, "board1", "--"]):
            assert main(wrong) == 2
            assert capfd.readouterr().err.startswith("bench.lab: ")
    finally:
        assert main(["down", *lab]) == 0
    assert nothing_left(name)
    assert main(["down", *lab]) == 2
    assert "no lab named" in capfd.readouterr().err


def test_a_forwarder_that_died_is_said_to_be(rights):
    with Lab(2, FAST) as lab:
        os.kill(int((read_state(lab.name).directory / "forwarder.pid").read_text()), signal.SIGKILL)
        assert until(lambda: not forwarders_of(lab.name))
        with pytest.raises(ClusterError, match="down and up again"):
            lab.set_link("20mbit,1ms")


def test_without_rights_it_says_what_to_do(monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["up"]) == 2
    said = capsys.readouterr().err
    assert "needs root" in said and "sudo" in said and "--link" in said


def test_boards_on_a_bridge_reach_each_other(rights):
    """What netem shapes, without its shaping, which not every kernel has."""
    boards = boards_of(2)
    name = f"bridge-{os.getpid()}"
    spaces = [namespace_of(name, board.name) for board in boards]
    medium = Netem(name, boards)
    try:
        for space in spaces:
            namespaces.add(space)
        try:
            medium.join()
        except ClusterError as error:
            pytest.skip(f"this kernel has no bridge: {error}")
        with namespaces.network(spaces[1]):
            listener = socket.create_server((boards[1].address, PORT))
        with listener, namespaces.network(spaces[0]):
            socket.create_connection((boards[1].address, PORT), 60).close()
    finally:
        medium.close()
        for space in spaces:
            namespaces.remove(space)
