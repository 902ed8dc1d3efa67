"""The air time of an emulated link, shared by the processes of this machine.

Times are seconds on `time.monotonic()`, which on Linux is one clock for all processes.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import random
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prism.emulation.link import LinkShape
from prism.errors import ConfigError

_LINK = struct.Struct("=ddd")  # bandwidth (inf = unlimited), latency, jitter
_CLOCK = struct.Struct("=d")


class Medium:
    """Air time on one emulated medium, reserved by all processes that open the same file.

    The file holds the link's bandwidth, latency and jitter, which so can change for everybody at
    once, and the time until which each node's uplink and downlink is busy; a `shared` medium has
    one such clock for all. Whoever comes first creates it, and a process that dies leaves nothing
    to repair. The file must not outlive a reboot, which restarts the clock; keep it in a temporary
    directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: LinkShape,
        nodes: int,
        rng: random.Random | None = None,
    ) -> None:
        """Open or create the clocks of `nodes` nodes at `path`.

        Args:
            path: the same file for every process on the medium.
            shape: what the link is like from the start; the one who creates the file decides.
            nodes: number of nodes on the medium.
            rng: source of the jitter.

        Raises:
            ConfigError: the file belongs to a medium with another number of nodes.
        """
        self._shared = shape.shared
        self._nodes = nodes
        self._rng = rng or random.Random()
        self._turn = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        length = _LINK.size + 2 * nodes * _CLOCK.size
        try:
            with self._exclusive():
                found = os.fstat(self._fd).st_size
                if found not in (0, length):
                    raise ConfigError(
                        f"{os.fspath(path)} is not a medium of {nodes} nodes ({found} bytes, "
                        f"{length} expected); use a new file for a new cluster"
                    )
                os.ftruncate(self._fd, length)
                self._file = mmap.mmap(self._fd, length)
                if not found:
                    self._write_link(shape)
        except BaseException:
            os.close(self._fd)
            raise

    def reshape(self, shape: LinkShape) -> None:
        """Change bandwidth, latency and jitter for every process; what is in the air stays."""
        with self._exclusive():
            self._write_link(shape)

    def _write_link(self, shape: LinkShape) -> None:
        rate = math.inf if shape.bandwidth_bps is None else shape.bandwidth_bps
        _LINK.pack_into(self._file, 0, rate, shape.latency_s, shape.jitter_s)

    def reserve(
        self, node_index: int, nbytes: int, now: float, receivers: Sequence[int] = ()
    ) -> float:
        """Return when a frame sent at `now` has arrived, and take the air time it needs.

        Copies to several receivers leave together and share the uplink fairly, as concurrent TCP
        streams do, so they all arrive with the last one. Receivers that are named also spend their
        downlink on it, which is how two senders to one receiver slow each other down.

        Args:
            node_index: the sender.
            nbytes: length of one copy.
            now: time of sending on `time.monotonic()`.
            receivers: who gets a copy; empty counts as one copy to somebody.
        """
        for index in (node_index, *receivers):
            if not 0 <= index < self._nodes:
                raise ConfigError(
                    f"node {index} is not on this medium of {self._nodes} nodes (0 to "
                    f"{self._nodes - 1}); open the medium for as many nodes as the cluster has"
                )
        with self._exclusive():
            rate, latency_s, jitter_s = _LINK.unpack_from(self._file, 0)
            done = now
            if math.isfinite(rate):
                done = self._occupy(node_index, nbytes * 8 / rate, now, receivers)
        return float(done + latency_s + self._rng.uniform(0.0, jitter_s))

    def delay_s(self) -> float:
        """Return how long something too small to need air time takes, jitter drawn afresh."""
        with self._exclusive():
            _, latency_s, jitter_s = _LINK.unpack_from(self._file, 0)
        return float(latency_s + self._rng.uniform(0.0, jitter_s))

    def _occupy(
        self, node_index: int, copy_s: float, now: float, receivers: Sequence[int]
    ) -> float:
        uplink = 0 if self._shared else node_index
        start = max(now, self._busy_until(uplink))
        done = start + copy_s * max(1, len(receivers))
        self._set_busy_until(uplink, done)
        if not self._shared:
            for receiver in receivers:
                downlink = self._nodes + receiver
                received = max(start, self._busy_until(downlink)) + copy_s
                self._set_busy_until(downlink, received)
                done = max(done, received)
        return done

    def _busy_until(self, clock: int) -> float:
        value: float = _CLOCK.unpack_from(self._file, _LINK.size + clock * _CLOCK.size)[0]
        return value

    def _set_busy_until(self, clock: int, value: float) -> None:
        _CLOCK.pack_into(self._file, _LINK.size + clock * _CLOCK.size, value)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        # flock excludes other processes but not other threads that use the same descriptor.
        with self._turn:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the file; other processes keep their view of it. Safe to call twice."""
        if not self._file.closed:
            self._file.close()
            os.close(self._fd)


def wait_until(moment_s: float) -> None:
    """Return at `moment_s` on `time.monotonic()`, when an emulated frame has arrived.

    No spinning for the last microseconds: the emulated nodes share this machine's cores.
    """
    while (left_s := moment_s - time.monotonic()) > 0:
        time.sleep(left_s)
