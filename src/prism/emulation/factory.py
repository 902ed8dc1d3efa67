"""Transports over an emulated link, made wherever transports are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium
from prism.emulation.shaped import ShapedTransport
from prism.transport.factory import MeetingPoint, TransportFactory


class EmulatedFactory:
    """Wraps every transport of another factory; has its name, since it meets at the same point.

    Args:
        inner: makes what really moves the frames.
        shape: this node's faults; bandwidth and delay are the medium's.
        medium: the air all nodes share.
        places: each node's index on the medium, by name.
    """

    def __init__(
        self,
        inner: TransportFactory,
        shape: LinkShape,
        medium: Medium,
        places: Mapping[str, int],
    ) -> None:
        self.name = inner.name
        self._inner = inner
        self._shape = shape
        self._medium = medium
        self._places = places

    def serve(self, host: str) -> MeetingPoint:
        """Open a meeting point; see `TransportFactory.serve`."""
        return self._inner.serve(host)

    def connect(
        self,
        meeting: tuple[str, int],
        epoch: int,
        members: Sequence[str],
        name: str,
        address: str,
        timeout_s: float,
    ) -> ShapedTransport:
        """Connect to the other members; see `TransportFactory.connect`."""
        inner = self._inner.connect(meeting, epoch, members, name, address, timeout_s)
        places = [self._places[member] for member in members]
        return ShapedTransport(inner, self._shape, self._medium, places)

    def forget(self) -> None:
        """Let go of the meeting point; see `TransportFactory.forget`."""
        self._inner.forget()
