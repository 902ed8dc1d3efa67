"""Which transport connects the nodes of a plan: chosen by name, made the same way everywhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prism.errors import ClusterError
from prism.transport.base import Transport
from prism.transport.gloo import GlooTransport, connect_store, epoch_store, serve_store

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

_SERVED_KEY_TIMEOUT_S = 30.0


class MeetingPoint(Protocol):
    """Where the nodes of a group find each other; open for as long as it is held."""

    @property
    def port(self) -> int:
        """On the coordinator's address."""


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
        """Let go of the meeting point; the next `connect` finds it anew. From any thread."""


@dataclass(frozen=True, slots=True)
class _GlooMeeting:
    """A TCP store; it lives as long as somebody holds it."""

    port: int
    store: TCPStore


class GlooFactory:
    """Transports over torch.distributed's Gloo, whose ranks meet at a TCP store."""

    name = "gloo"

    def __init__(self) -> None:
        self._known: tuple[tuple[str, int], TCPStore] | None = None

    def serve(self, host: str) -> MeetingPoint:
        """Open a store on `host`; see `TransportFactory.serve`."""
        store = serve_store(host, 0, _SERVED_KEY_TIMEOUT_S)
        return _GlooMeeting(store.port, store)

    def connect(
        self,
        meeting: tuple[str, int],
        epoch: int,
        members: Sequence[str],
        name: str,
        address: str,
        timeout_s: float,
    ) -> GlooTransport:
        """Connect to the other members; see `TransportFactory.connect`."""
        try:
            store = epoch_store(self._store_at(meeting, timeout_s), epoch)
            return GlooTransport(store, members.index(name), len(members), timeout_s, address)
        except ClusterError:
            self.forget()  # it may be the store's connection that broke
            raise

    def forget(self) -> None:
        """Let go of the store; see `TransportFactory.forget`."""
        self._known = None

    def _store_at(self, meeting: tuple[str, int], timeout_s: float) -> TCPStore:
        known = self._known
        if known is not None and known[0] == meeting:
            return known[1]
        store = connect_store(*meeting, timeout_s)
        self._known = (meeting, store)
        return store


FACTORIES: Mapping[str, Callable[[], TransportFactory]] = {"gloo": GlooFactory}
