"""prism on the boards of a lab, as the quick start of the README sets it up on devices."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.lab.lab import Lab
from bench.lab.shape import Board

import prism
from prism.errors import ClusterError

PORT = 7070
_PRISM = (sys.executable, "-m", "prism")
_END_TIMEOUT_S = 5.0


@contextlib.contextmanager
def cluster_on(lab: Lab, directory: Path) -> Iterator[prism.Cluster]:
    """Make a key, start a node on every board but the first, and connect from the first.

    Meanwhile this process is a program of the first board, as the coordinator's is: its network,
    its cores. So what it computes beside the cluster runs where the first node does.

    Args:
        lab: that is up.
        directory: for the key, `cluster.yaml` and the nodes' output.

    Raises:
        ClusterError: a node did not join; says what it said last.
    """
    first, *others = lab.boards
    key = directory / "cluster.key"
    subprocess.run([*_PRISM, "keygen", str(key)], check=True, stdout=subprocess.DEVNULL)
    file = directory / "cluster.yaml"
    names = ", ".join(board.name for board in lab.boards)
    file.write_text(f"nodes: [{names}]\nhost: {first.address}\nport: {PORT}\nsecret: {key.name}\n")
    with contextlib.ExitStack() as ending:
        for board in others:
            ending.enter_context(node_on(lab, board, directory))
        ending.enter_context(lab.inside(first.name))
        ending.enter_context(_one_thread_per_core(first))
        try:
            cluster = prism.connect(file, min_nodes=len(lab.boards))
        except ClusterError as error:
            said = "; ".join(f"{board.name}: {last_line(directory, board)}" for board in others)
            raise ClusterError(f"{error} They said last: {said}") from error
        with cluster:
            yield cluster


@contextlib.contextmanager
def node_on(lab: Lab, board: Board, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start `prism node` on a board, and end it.

    Args:
        lab: that is up.
        board: one of its boards.
        directory: where the key is, and where the node's output goes.
    """
    words = [*_PRISM, "node", "--name", board.name]
    words += ["--coordinator", f"tcp://{lab.boards[0].address}:{PORT}"]
    words += ["--secret", str(directory / "cluster.key"), "--device", "cpu"]
    words += ["--threads", str(len(board.cores) or 1)]
    if board.cores:
        words += ["--cores", ",".join(map(str, board.cores))]
    node = lab.start(board.name, words, directory / f"{board.name}.log")
    try:
        yield node
    finally:
        node.terminate()
        try:
            node.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            node.kill()
            node.wait()


def last_line(directory: Path, board: Board) -> str:
    """Return what a node printed last."""
    lines = (directory / f"{board.name}.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "nothing"


@contextlib.contextmanager
def _one_thread_per_core(board: Board) -> Iterator[None]:
    """Let the first board's node, which inherits this, have a thread for each of its cores."""
    name, before = "OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS")
    os.environ[name] = str(len(board.cores) or 1)
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before
