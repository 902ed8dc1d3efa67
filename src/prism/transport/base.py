"""What a transport is: byte frames sent to peers and received from them, and handles to wait for.

A transport moves frames (1-D uint8 CPU tensors of a length both ends know) and never sees a model
or a plan. `transport.staging` turns tensors into frames and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(slots=True)
class Counters:
    """What went through a transport since the last reset.

    `comm_s` is the time callers stood still in `Handle.wait`.
    """

    bytes_sent: int = 0
    bytes_received: int = 0
    messages: int = 0
    comm_s: float = 0.0

    def reset(self) -> None:
        """Start counting from zero."""
        self.bytes_sent = self.bytes_received = self.messages = 0
        self.comm_s = 0.0


class Handle(Protocol):
    """Frames under way, in one direction."""

    def wait(self, timeout_s: float) -> None:
        """Return once every frame has arrived, or is on its way and may be refilled.

        May be called again. Every handle is waited for sooner or later; until then it holds its
        frames.

        Raises:
            PeerLost: a peer's connection broke.
            DeadlineExceeded: `timeout_s` seconds went by; the transport is unusable from then on.
        """


class Transport(Protocol):
    """Point-to-point frames among the ranks of one membership epoch.

    An exchange has a number, by which its frames find each other: each rank may send at most one
    frame to each other rank under it. Who receives posts its buffers early, best before the sender
    has anything to send: a frame that is expected leaves at once, another one only when word has
    come that there is room for it, which costs one more latency.

    Attributes:
        rank: this node's place, 0 is the one that ends a sequence plan.
        size: number of ranks.
        header_bytes: leading bytes of every frame that belong to the transport; a sender leaves
            them free, a receiver skips them.
        counters: running totals; the owner reads and resets them between requests.
    """

    rank: int
    size: int
    header_bytes: int
    counters: Counters

    @property
    def closed(self) -> bool:
        """Whether `close` was called; nothing can be exchanged any more."""

    def take_numbers(self, count: int) -> int:
        """Return the first of the next `count` numbers; all ranks take as many, in one order."""

    def receive(self, number: int, buffers: Mapping[int, torch.Tensor]) -> Handle:
        """Start receiving the frame of each peer into `buffers[peer]`; do not block.

        The buffers have the exact length of the peer's frame, header included, and stay untouched
        until the handle's `wait` returns.
        """

    def send(self, number: int, frame: torch.Tensor, peers: Sequence[int]) -> Handle:
        """Start sending `frame`; do not block. It stays as it is until `wait` returns.

        Whoever does not wait for it leaves it to `settle`.
        """

    def settle(self, timeout_s: float) -> None:
        """Wait for all own frames that were sent and not waited for.

        Raises:
            PeerLost, DeadlineExceeded: as `Handle.wait`.
        """

    def close(self) -> None:
        """Release connections. Safe to call twice, and after a failure."""
