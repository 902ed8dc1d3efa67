"""Frames over torch.distributed's Gloo: one process group per membership epoch.

Owns the group, its outstanding works and the meaning of Gloo's errors. Frames travel point to
point, all peers at once, so unequal lengths need no padding and an exchange costs one network
latency. No default process group is made: epochs come and go while the process lives.

Gloo neither encrypts nor authenticates; run it on a network you trust, or inside a VPN.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from prism.errors import ClusterError, ConfigError, DeadlineExceeded, PeerLost
from prism.transport.base import Counters

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store, TCPStore

# The stubs export neither the stores nor the names by which torch 2.6 and later agree on Gloo's
# options, and a torch without distributed has none of them.
_untyped: Any = dist
_TAGS = 1 << 20
# Peers and Gloo's works for them.
_Works = list[tuple[int, Any]]


def serve_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Open the store at which ranks find each other, on the address `host` only.

    Args:
        host: one of this machine's addresses.
        port: 0 picks a free one; read it from `store.port`.
        timeout_s: longest wait for a key.

    Raises:
        ConfigError: the address or port cannot be used here.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}); give a free port and an address "
            "of this machine"
        ) from error
    port = listener.getsockname()[1]
    store: TCPStore = _untyped.TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        timeout=timedelta(seconds=timeout_s),
        master_listen_fd=listener.detach(),
    )
    return store


def connect_store(host: str, port: int, timeout_s: float) -> TCPStore:
    """Connect to the coordinator's store.

    Raises:
        PeerLost: nothing answers there.
    """
    try:
        store: TCPStore = _untyped.TCPStore(
            host,
            port,
            is_master=False,
            wait_for_workers=False,
            timeout=timedelta(seconds=timeout_s),
        )
        return store
    except dist.DistError as error:
        raise PeerLost(
            f"no store answered at {host}:{port} within {timeout_s:g} s; "
            "is the coordinator running, and is the port open?"
        ) from error


def epoch_store(store: Store, epoch: int) -> Store:
    """Return the part of `store` that belongs to one membership epoch."""
    part: Store = _untyped.PrefixStore(f"epoch{epoch}", store)
    return part


class GlooTransport:
    """The `Transport` of one epoch over Gloo; any failure means a new epoch, a new transport."""

    header_bytes = 0

    def __init__(self, store: Store, rank: int, size: int, timeout_s: float, host: str) -> None:
        """Connect to all ranks; returns when every one of them has come.

        Args:
            store: the store of this epoch only, see `epoch_store`.
            rank: this node's place.
            size: number of ranks.
            timeout_s: longest wait for the others.
            host: the local address to listen on, the one by which the coordinator is reached.

        Raises:
            ConfigError: `host` is not an address of this machine, or torch lacks Gloo.
            DeadlineExceeded: a rank did not come in time.
            PeerLost: a rank, or the store, broke off while connecting.
        """
        self.rank = rank
        self.size = size
        self.counters = Counters()
        self._next = 0
        self._failure: str | None = None
        self._open: set[GlooHandle] = set()
        self._group: Any = _form_group(store, rank, size, timeout_s, host)

    def take_numbers(self, count: int) -> int:
        """Return the first of the next `count` numbers; see `Transport.take_numbers`."""
        first = self._next
        self._next += count
        return first

    def receive(self, number: int, buffers: Mapping[int, torch.Tensor]) -> GlooHandle:
        """Start receiving; see `Transport.receive`.

        Raises:
            PeerLost: a peer's connection is already broken.
            ClusterError: this transport has failed or was closed before.
        """
        self.require_usable("receive")
        return self._start(GlooHandle(self, buffers, arriving=True), number)

    def send(self, number: int, frame: torch.Tensor, peers: Sequence[int]) -> GlooHandle:
        """Start sending; see `Transport.send`.

        Raises:
            PeerLost: a peer's connection is already broken.
            ClusterError: this transport has failed or was closed before.
        """
        self.require_usable("send")
        frames = dict.fromkeys(peers, frame)
        handle = self._start(GlooHandle(self, frames, arriving=False), number)
        self.counters.bytes_sent += frame.numel() * len(peers)
        self.counters.messages += len(peers)
        return handle

    def settle(self, timeout_s: float) -> None:
        """Wait for own frames; see `Transport.settle`.

        Raises:
            PeerLost, DeadlineExceeded, ClusterError: as `GlooHandle.wait`.
        """
        for handle in [each for each in self._open if not each.arriving]:
            handle.wait(timeout_s)

    def _start(self, handle: GlooHandle, number: int) -> GlooHandle:
        # No local name here may hold the group: the error's traceback would keep it alive.
        self._open.add(handle)
        failed = handle.start(self._group, number % _TAGS)
        if failed is not None:
            raise self.fail(*failed, timeout_s=0.0)
        return handle

    def require_usable(self, action: str) -> None:
        """Raise ClusterError once the transport has failed or was closed.

        After the first failure Gloo's errors name whichever peer comes next, not the culprit.
        """
        if self._failure is not None:
            raise ClusterError(
                f"rank {self.rank} cannot {action}: its transport {self._failure}; form a new epoch"
            )

    def fail(self, peer: int, error: RuntimeError, timeout_s: float) -> ClusterError:
        """Mark the transport as unusable and return what to raise for Gloo's `error`."""
        failure: ClusterError
        if "timed out waiting" in str(error).lower():
            self._failure = f"timed out on rank {peer}"
            failure = DeadlineExceeded(
                f"rank {peer} did not answer rank {self.rank} within {timeout_s:g} s; "
                "retry in a new epoch without it"
            )
        else:
            self._failure = f"lost rank {peer}"
            failure = PeerLost(
                f"rank {peer} broke its connection to rank {self.rank}; "
                "retry in a new epoch without it"
            )
        # Gloo's traceback would keep the failed work alive, and with it every socket.
        failure.__cause__ = error.with_traceback(None)
        return failure

    def release(self, handle: GlooHandle) -> None:
        """Let go of a handle whose frames have all arrived, or are all sent."""
        self._open.discard(handle)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._group is None

    def close(self) -> None:
        """Release the connections; peers that wait for this rank see it leave.

        Takes milliseconds, also with unfinished works after a failure. The sockets live as long
        as the group or any of its works does, so both are dropped here; once that has happened
        Gloo writes to no buffer any more and the frames may be reused. Gloo's own `abort` and
        `shutdown` leave the sockets open. A wait in another thread is not interrupted: it ends
        at its own deadline and holds the sockets until then.
        """
        for handle in self._open:
            handle.release()
        self._open.clear()
        self._group = None
        self._failure = self._failure or "was closed"


class GlooHandle:
    """Frames to or from some peers over Gloo: their works, and the buffers that those use.

    When a connection breaks, Gloo tells all works on it except the one whose bytes are just
    passing: a wait for that one ends at its deadline only.
    """

    def __init__(
        self, owner: GlooTransport, frames: Mapping[int, torch.Tensor], *, arriving: bool
    ) -> None:
        for frame in frames.values():
            assert frame.dtype == torch.uint8 and frame.dim() == 1 and frame.is_contiguous()
        self._owner = owner
        self._frames = dict(frames)
        self.arriving = arriving
        self._works: _Works = []
        self._over = False

    def start(self, group: Any, tag: int) -> tuple[int, RuntimeError] | None:
        """Hand all frames to `group`; return the peer and error of the first that it refuses."""
        peer = self._owner.rank
        action = group.recv if self.arriving else group.send
        try:
            for peer, frame in self._frames.items():
                self._works.append((peer, action([frame], peer, tag)))
        except RuntimeError as error:
            return peer, error
        return None

    def wait(self, timeout_s: float) -> None:
        """Wait for the frames; see `Handle.wait`."""
        if self._over:
            return
        owner = self._owner
        owner.require_usable("wait")
        begun = time.monotonic()
        failed = _first_failure(self._works, begun + timeout_s)
        owner.counters.comm_s += time.monotonic() - begun
        if failed is not None:
            raise owner.fail(*failed, timeout_s=timeout_s)
        self._works.clear()
        self._over = True
        if self.arriving:
            owner.counters.bytes_received += sum(each.numel() for each in self._frames.values())
        owner.release(self)

    def release(self) -> None:
        """Drop the works; the buffers stay for as long as somebody holds the handle."""
        # Emptied in place: the traceback of a failed wait may hold the list.
        self._works.clear()


def _first_failure(works: _Works, deadline: float) -> tuple[int, RuntimeError] | None:
    """Wait for works in turn; return the peer and error of the first that fails.

    The error is returned, not raised: a traceback through this frame would hold on to the failed
    work, and `close` could not take the connections down.
    """
    for peer, work in works:
        # Gloo reads 0 as "no limit".
        left_s = max(0.001, deadline - time.monotonic())
        try:
            work.wait(timedelta(seconds=left_s))
        except RuntimeError as error:
            return peer, error
    return None


def _form_group(store: Store, rank: int, size: int, timeout_s: float, host: str) -> Any:
    if not dist.is_available() or not dist.is_gloo_available():
        raise ConfigError("this torch was built without Gloo; install a torch that has it")
    gloo = _untyped.ProcessGroupGloo
    options = gloo._Options()
    options._timeout = timedelta(seconds=timeout_s)
    options._threads = 1
    try:
        options._devices = [gloo.create_device(hostname=host)]
    except RuntimeError as error:
        raise ConfigError(
            f"{host!r} is not an address of this machine; give the one by which the coordinator "
            "is reached"
        ) from error
    try:
        return gloo(store, rank, size, options)
    except RuntimeError as error:
        # Gloo and the store raise one class for both; only the words tell them apart.
        late = "timeout" in str(error).lower() or "timed out" in str(error).lower()
        reason = f"rank {rank} could not reach all {size} ranks"
        if late:
            raise DeadlineExceeded(
                f"{reason} within {timeout_s:g} s; are they all in this epoch?"
            ) from error
        raise PeerLost(
            f"{reason}: one of them, or the coordinator's store, broke off; retry in a new epoch"
        ) from error
