"""How clusters of this machine end: whatever happens, no process and no file is left."""

import os
import signal
import subprocess
import sys
import time

import pytest
from tests.air import Air
from tests.machines import (
    alone,
    close,
    exists,
    pixels,
    secret_at,
    start_node,
    tiny_vit,
    until,
)

import prism
from prism.errors import ClusterError

# Starts a cluster, says who is in it, and then does what it is told.
SCRIPT = """
import sys, time
import prism
from tests.machines import pixels, tiny_vit

if __name__ == "__main__":
    nodes = 2 if sys.argv[1] == "run" else 1
    cluster = prism.local_cluster(nodes=nodes, threads=1, link="1mbit,300ms")
    model = cluster.load(tiny_vit(blocks=12))
    print(*(cluster.pid(name) for name in cluster.nodes), flush=True)
    if sys.argv[1] == "raise":
        with cluster:
            raise RuntimeError("on purpose")
    if sys.argv[1] == "forget":
        sys.exit()
    with cluster:
        while True:  # each takes seconds on this link
            model(plan="seq:2:full", pixel_values=pixels(8))
"""


class Script:
    def __init__(self, tmp_path, what):
        path = tmp_path / "script.py"
        path.write_text(SCRIPT)
        self.temp = tmp_path / "temp"
        self.temp.mkdir()
        paths = [os.getcwd(), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, str(path), what],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(self.temp), "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self.nodes = [int(pid) for pid in self.process.stdout.readline().split()]
        assert self.nodes, self.process.communicate()[1]

    def left(self):
        return [pid for pid in self.nodes if exists(pid)], list(self.temp.glob("prism-*"))


@pytest.mark.parametrize(
    ("what", "number", "code"),
    [
        ("raise", None, 1),
        ("forget", None, 0),
        ("run", signal.SIGINT, -signal.SIGINT),
        ("run", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_nothing_is_left(tmp_path, what, number, code):
    script = Script(tmp_path, what)
    if number is not None:
        air = Air(next(script.temp.glob("prism-*/medium")), ("node0", "node1"))
        assert until(air.sends("node1")), "a request never got to its exchanges"
        script.process.send_signal(number)
    _, errors = script.process.communicate(timeout=30.0)
    ended = time.monotonic()
    assert script.process.returncode == code
    assert until(lambda: script.left() == ([], []), timeout_s=10.0), script.left()
    if number != signal.SIGKILL:
        assert time.monotonic() - ended < 0.5  # the caller waited for them
    assert ("on purpose" in errors) == (what == "raise")
    assert "Exception ignored" not in errors and "ResourceWarning" not in errors


def test_closing_is_quick_even_with_a_frozen_node_and_final():
    vit = tiny_vit()
    with prism.local_cluster(nodes=2, threads=1) as cluster:
        model = cluster.load(vit)
        x = pixels(1)
        assert close(model(plan="seq:2:full", pixel_values=x)[0], alone(vit, pixel_values=x)[0])
        pids = [cluster.pid(name) for name in cluster.nodes]
        os.kill(pids[1], signal.SIGSTOP)
        begun = time.monotonic()
        cluster.close()
        assert time.monotonic() - begun < 5.0
        assert not any(map(exists, pids))
        cluster.close()
        assert cluster.nodes == ()
        with pytest.raises(ClusterError, match="alive"):
            model(pixel_values=x)


def test_a_node_that_cannot_start_is_reported_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    begun = time.monotonic()
    with pytest.raises(ClusterError, match=r"node\d did not start: device 'quantum'"):
        prism.local_cluster(nodes=2, threads=1, device="quantum")
    assert time.monotonic() - begun < 60.0  # joining would be waited for twice as long
    assert list(tmp_path.glob("prism-*")) == []


def test_a_node_whose_cluster_was_closed_without_a_word_ends(tmp_path):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    secret = secret_at(tmp_path / "cluster.key")
    nobody = "tcp://127.0.0.1:9"
    options = ("--parent", str(os.getpid()), "--scratch", str(scratch))
    node = start_node(tmp_path / "node.log", "a", nobody, secret, *options)
    try:
        assert node.poll() is None
        scratch.rmdir()
        assert node.wait(30.0) == 0
    finally:
        node.kill()
        node.wait()


@pytest.mark.parametrize("left", ["a signal", "the scratch directory"])
def test_a_node_that_was_frozen_ends_as_any_other(tmp_path, left):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    secret = secret_at(tmp_path / "cluster.key")
    options = ("--parent", str(os.getpid()), "--scratch", str(scratch))
    node = start_node(tmp_path / "node.log", "a", "tcp://127.0.0.1:9", secret, *options)
    try:
        # The first thread besides the main one is the one that watches.
        assert until(lambda: len(os.listdir(f"/proc/{node.pid}/task")) > 1)
        node.send_signal(signal.SIGSTOP)
        time.sleep(1.0)  # longer than it looks around for signals
        node.send_signal(signal.SIGCONT)
        time.sleep(0.5)  # it has looked around since
        if left == "a signal":
            node.send_signal(signal.SIGTERM)
        else:
            scratch.rmdir()
        assert node.wait(30.0) == 0
        assert "Traceback" not in (tmp_path / "node.log").read_text()
    finally:
        node.kill()
        node.wait()
