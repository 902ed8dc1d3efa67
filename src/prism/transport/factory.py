"""Which transport connects the nodes of a plan: chosen by name, made the same way everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from prism.transport.base import Transport


class MeetingPoint(Protocol):
    """Where the nodes of a group find each other; lives with the coordinator.

    Attributes:
        port: on the coordinator's address.
    """

    port: int


class TransportFactory(Protocol):
    """Makes the transports of one kind.

    Attributes:
        name: the kind, as messages and `cluster.yaml` write it.
    """

    name: str

    def serve(self, host: str) -> MeetingPoint:
        """Open a meeting point on an address of this machine, at the coordinator.

        Raises:
            ConfigError: the address cannot be used here.
        """

    def connect(
        self,
        meeting: tuple[str, int],
        epoch: int,
        members: Sequence[str],
        name: str,
        address: str,
        timeout_s: float,
    ) -> Transport:
        """Connect node `name` to the other members of a group; every one of them calls this.

        Args:
            meeting: host and port of the meeting point.
            epoch: unique to the group.
            members: names of the nodes, by rank.
            name: of this node.
            address: of this node, by which the coordinator is reached.
            timeout_s: longest wait for the others.

        Raises:
            PeerLost, DeadlineExceeded: a member, or the meeting point, did not come.
            ConfigError: this machine cannot use such a transport.
        """

    def forget(self) -> None:
        """Let go of the meeting point; the next `connect` finds it anew."""
