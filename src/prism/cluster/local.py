"""Node processes on this machine: the same program that runs on real devices.

Each is a fresh interpreter, pinned to its own cores where there are enough, so that two nodes are
two devices. They end with the cluster, or with the process that started them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_STOP_TIMEOUT_S = 5.0


class NodeProcess:
    """One node process started here.

    Args:
        name: of the node.
        arguments: of `prism node`, after the name.
        log: file its output goes to.
        threads: compute threads; None leaves the choice to torch.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], log: Path, threads: int | None = None
    ) -> None:
        self.name = name
        self._log = log
        command = [sys.executable, "-m", "prism", "node", "--name", name, *arguments]
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the caller, who stops the nodes in order.
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(threads),
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether the process still lives."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of what the process printed."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.poll()}, no output"

    def stop(self) -> None:
        """Wait for the process to end as it was told; end it if it does not. Safe to repeat."""
        for end in (lambda: None, self._process.terminate, self._process.kill):
            end()
            try:
                self._process.wait(_STOP_TIMEOUT_S)
                return
            except subprocess.TimeoutExpired:
                continue

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        self._process.wait()


def cores_for(nodes: int, threads: int) -> list[tuple[int, ...]]:
    """Return the cores each node is pinned to, or no cores at all where they do not suffice."""
    available = sorted(os.sched_getaffinity(0))
    if nodes * threads > len(available):
        return [()] * nodes
    return [tuple(available[i * threads : (i + 1) * threads]) for i in range(nodes)]


def _environment(threads: int | None) -> dict[str, str]:
    environment = dict(os.environ)
    if threads is not None:
        environment["OMP_NUM_THREADS"] = environment["MKL_NUM_THREADS"] = str(threads)
    return environment
