"""This node's connections to the others, one transport per epoch."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prism.control.messages import Group
from prism.errors import ClusterError, ConfigError
from prism.transport.base import Transport
from prism.transport.factory import TransportFactory

# All members are told to meet at the same time, with nothing to do but that.
_MEET_TIMEOUT_S = 5.0


class Groups:
    """The groups this node belongs to.

    A group is announced when the coordinator tells of it, connected by the computing thread, and
    closed from any thread. What was closed before it was connected, because this node was busy or
    frozen meanwhile, is never connected: the others have given it up.

    Args:
        name: of this node.
        host: of the coordinator, where groups meet.
        address: of this node.
        factory: makes the transports.
    """

    def __init__(self, name: str, host: str, address: str, factory: TransportFactory) -> None:
        self._name = name
        self._host = host
        self._address = address
        self._factory = factory
        self._open: dict[int, Transport | None] = {}  # None: announced, not connected
        self._in_use: int | None = None
        self._changing = threading.Lock()

    def announce(self, epoch: int) -> None:
        """Take note of a group that is to be connected."""
        with self._changing:
            self._open.setdefault(epoch, None)

    def is_open(self, epoch: int | None) -> bool:
        """Whether a group was announced and not closed; None is no group, which nobody closes."""
        return epoch is None or epoch in self._open

    def connect(self, group: Group) -> None:
        """Connect to the members of an announced group; for the computing thread.

        Raises:
            PeerLost, DeadlineExceeded: a member, or the meeting point, did not come.
            ConfigError: this node cannot use the group's transport.
        """
        if not self.is_open(group.epoch):
            return
        try:
            transport = self._connect(group)
        except BaseException:
            self.close((group.epoch,))
            raise
        with self._changing:
            if group.epoch in self._open:
                self._open[group.epoch] = transport
                return
        transport.close()

    def _connect(self, group: Group) -> Transport:
        if group.transport != self._factory.name:
            raise ConfigError(
                f"{self._name} connects nodes over {self._factory.name}, the coordinator over "
                f"{group.transport}; start both with the same transport"
            )
        return self._factory.connect(
            (self._host, group.meeting_port),
            group.epoch,
            group.members,
            self._name,
            self._address,
            _MEET_TIMEOUT_S,
        )

    @contextmanager
    def using(self, epoch: int | None) -> Iterator[Transport | None]:
        """Lend the transport of a group to the computing thread; None for no group.

        Raises:
            ClusterError: this node is not connected in that epoch.
        """
        if epoch is None:
            yield None
            return
        with self._changing:
            transport = self._open.get(epoch)
            if transport is None:
                raise ClusterError(f"{self._name} has left epoch {epoch}; form a new one")
            self._in_use = epoch
        try:
            yield transport
        finally:
            with self._changing:
                self._in_use = None
                # Another coordinator may have announced a group of the same number meanwhile.
                closed = self._open.get(epoch) is not transport
            if closed:
                transport.close()

    def close(self, epochs: Sequence[int]) -> None:
        """Close groups, from any thread; one in use is closed by whoever uses it."""
        with self._changing:
            removed = [(epoch, self._open.pop(epoch, None)) for epoch in epochs]
            idle = [transport for epoch, transport in removed if epoch != self._in_use]
        for transport in idle:
            if transport is not None:
                transport.close()

    def close_all(self) -> None:
        """Close every group, and find the meeting point anew for the next."""
        with self._changing:
            epochs = tuple(self._open)
        self.close(epochs)
        self._factory.forget()
