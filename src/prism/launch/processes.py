"""Node processes on this machine: the same program that runs on real devices.

Each is a fresh interpreter, pinned to its own cores where there are enough, so that two nodes are
two devices. They end with the cluster, or with the process that started them.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

_GRACE_S = 1.0


class NodeProcess:
    """One node process started here.

    Args:
        name: of the node.
        arguments: of `prism node`, after the name.
        scratch: directory for its output; the process removes it if this one is killed.
        threads: compute threads; None leaves the choice to torch.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], scratch: Path, threads: int | None = None
    ) -> None:
        self.name = name
        self._log = scratch / f"{name}.log"
        command = [sys.executable, "-m", "prism", "node", "--name", name, *arguments]
        with self._log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the caller, who stops the nodes in order.
            self._process = subprocess.Popen(
                [*command, "--parent", str(os.getpid()), "--scratch", str(scratch)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(threads),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process still lives."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """Return why the process ended, as it said, or the end of what it printed."""
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = [line for line in lines if line.startswith("prism: ")]
        if not lines:
            return f"exit code {self._process.poll()}, no output"
        return said[-1].removeprefix("prism: ") if said else lines[-1]

    def end_by(self, moment_s: float) -> None:
        """Wait for the process to end, as it was told, until `moment_s`; then kill it.

        A node keeps nothing that could be lost. Safe to repeat.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, moment_s - time.monotonic()))
            return
        self._process.kill()  # also ends a frozen process, which no request can
        self._process.wait()


def end_all(processes: Sequence[NodeProcess], grace_s: float = _GRACE_S) -> None:
    """End processes that were told to; kill those that have not after `grace_s`."""
    moment_s = time.monotonic() + grace_s
    for process in processes:
        process.end_by(moment_s)


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
