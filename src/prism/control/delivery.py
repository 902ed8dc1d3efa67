"""How frames get from one end of the control plane to the other.

A network does it by itself (`DIRECT`). Whoever imitates another network wraps the same two calls;
both ends of a cluster are given the same kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

Frames = list[Any]


class Delivery(Protocol):
    """One end's way to the others; frames are bytes or memoryviews."""

    def outgoing(self, receiver: str, frames: Frames) -> Frames:
        """Return what to put on the socket for a node; "" is the coordinator, or not yet known.

        Called by whoever sends, on any thread, in the order of sending.
        """

    def incoming(self, sender: str, frames: Frames, deliver: Callable[[Frames], None]) -> None:
        """Call `deliver` with what `outgoing` was given, in the order of each sender.

        It may be called later and on another thread; it must not raise. `sender` tells connections
        apart.
        """

    def close(self) -> None:
        """Deliver nothing more. Safe to call twice."""


class _Direct:
    """What comes from a socket has arrived."""

    def outgoing(self, receiver: str, frames: Frames) -> Frames:
        return frames

    def incoming(self, sender: str, frames: Frames, deliver: Callable[[Frames], None]) -> None:
        deliver(frames)

    def close(self) -> None:
        pass


DIRECT: Delivery = _Direct()
