"""What a transport is: posts of byte frames to peers, and handles to wait for theirs.

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

    `comm_s` is the time callers stood still in `Handle.wait` and `Handle.wait_sent`.
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
    """One exchange under way. Both waits may be called again, in any order."""

    def wait(self, timeout_s: float) -> None:
        """Return once every peer's frame of this exchange has arrived.

        Raises:
            PeerLost: a peer's connection broke.
            DeadlineExceeded: `timeout_s` seconds went by; the transport is unusable from then on.
        """

    def wait_sent(self, timeout_s: float) -> None:
        """Return once the own frame is on its way to every peer, so that it may be refilled.

        Every exchange is waited for in this way sooner or later; until then it holds its frames.

        Raises:
            PeerLost, DeadlineExceeded: as `wait`.
        """


class Transport(Protocol):
    """Point-to-point frames among the ranks of one membership epoch.

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

    def post(
        self, frame: torch.Tensor, send_to: Sequence[int], receive: Mapping[int, torch.Tensor]
    ) -> Handle:
        """Start sending `frame` to `send_to` and receiving into `receive[peer]`; do not block.

        Every rank posts its exchanges in the same order. The receive buffers must stay untouched
        until the handle's `wait` returns, `frame` until its `wait_sent` does. Receive buffers have
        the exact length of the peer's frame, header included.
        """

    def close(self) -> None:
        """Release connections. Safe to call twice, and after a failure."""
