"""An emulated link around any transport, for demos, tests and benches without root.

Owns the delay: the sender reserves air time on the `Medium` and writes the time of arrival into
the frame's header; the receiver sleeps until then. Sending never blocks for the emulation, just as
a socket's buffer would take the frame at once. The real network's own delay hides in the emulated
one, so the emulation is true as long as the real link is the faster of the two.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch

from prism.emulation.link import LinkShape
from prism.emulation.medium import Medium, wait_until
from prism.errors import ClusterError, DeadlineExceeded
from prism.transport.base import Counters, Handle, Transport

STAMP_BYTES = 8


class ShapedTransport:
    """A `Transport` whose frames arrive no earlier than an emulated link would deliver them.

    A frame carries one stamp: the arrival of its last copy. Copies leave together and share the
    uplink fairly, so that is when each of them is complete. The stamp is no traffic: it neither
    takes air time nor counts as bytes.
    """

    def __init__(
        self, inner: Transport, shape: LinkShape, medium: Medium, node_indices: Sequence[int]
    ) -> None:
        """Wrap `inner`.

        Args:
            inner: what really moves the frames.
            shape: this node's faults; bandwidth and delay are the medium's.
            medium: the air shared by the nodes of this machine.
            node_indices: for each rank its node's place on the medium.
        """
        self.rank = inner.rank
        self.size = inner.size
        self.header_bytes = inner.header_bytes + STAMP_BYTES
        self._inner = inner
        self._shape = shape
        self._medium = medium
        self._node_indices = tuple(node_indices)
        self._stamp = slice(inner.header_bytes, self.header_bytes)
        self._sent = 0
        self._expired = False

    @property
    def counters(self) -> Counters:
        """Running totals, those of the inner transport plus the emulated waiting."""
        return self._inner.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self._inner.counters = counters

    @property
    def closed(self) -> bool:
        """Whether nothing can be exchanged any more."""
        return self._expired or self._inner.closed

    def take_numbers(self, count: int) -> int:
        """Return the first of the next `count` numbers; see `Transport.take_numbers`."""
        return self._inner.take_numbers(count)

    def receive(self, number: int, buffers: Mapping[int, torch.Tensor]) -> ShapedReceive:
        """Start receiving; see `Transport.receive`."""
        self._require_time("receive")
        return ShapedReceive(self, self._inner.receive(number, buffers), buffers)

    def send(self, number: int, frame: torch.Tensor, peers: Sequence[int]) -> Handle:
        """Stamp `frame` and send it; see `Transport.send`. Its air time is the receivers'."""
        self._require_time("send")
        if peers:
            arrival = self._reserve(frame.numel() - STAMP_BYTES, peers)
            frame[self._stamp].copy_(torch.tensor([arrival], dtype=torch.float64).view(torch.uint8))
        handle = self._inner.send(number, frame, peers)
        self.counters.bytes_sent -= STAMP_BYTES * len(peers)
        return handle

    def settle(self, timeout_s: float) -> None:
        """Wait for own frames; see `Transport.settle`."""
        self._inner.settle(timeout_s)

    def _require_time(self, action: str) -> None:
        if self._expired:
            raise ClusterError(
                f"rank {self.rank} cannot {action}: its transport timed out; form a new epoch"
            )

    def _reserve(self, nbytes: int, send_to: Sequence[int]) -> float:
        held_s = self._shape.hold_s(self._sent)
        self._sent += 1
        now = time.monotonic()
        # A vanished frame still travels inside the inner transport, which has to stay in step;
        # its arrival never comes.
        if math.isinf(held_s):
            return math.inf
        receivers = [self._node_indices[peer] for peer in send_to]
        node_index = self._node_indices[self.rank]
        return self._medium.reserve(node_index, nbytes, now, receivers) + held_s

    def arrival(self, frame: torch.Tensor) -> float:
        """Return the time stamped into a received frame."""
        # A clone, because the stamp may lie at an address that float64 cannot be read from.
        return float(frame[self._stamp].clone().view(torch.float64).item())

    def expire(self) -> None:
        """Refuse exchanges from now on: a deadline has passed."""
        self._expired = True

    def close(self) -> None:
        """Close the inner transport. The medium stays open; it belongs to the caller."""
        self._inner.close()


class ShapedReceive:
    """Frames on their way here over an emulated link."""

    def __init__(
        self, owner: ShapedTransport, inner: Handle, buffers: Mapping[int, torch.Tensor]
    ) -> None:
        self._owner = owner
        self._inner = inner
        self._buffers = dict(buffers)

    def wait(self, timeout_s: float) -> None:
        """Wait for the frames, then until the emulated link would have delivered them."""
        deadline = time.monotonic() + timeout_s
        self._inner.wait(timeout_s)
        owner = self._owner
        arrivals = {owner.arrival(frame): peer for peer, frame in self._buffers.items()}
        last = max(arrivals, default=-math.inf)
        begun = time.monotonic()
        wait_until(min(last, deadline))
        owner.counters.comm_s += time.monotonic() - begun
        if last > deadline:
            owner.expire()
            raise DeadlineExceeded(
                f"rank {arrivals[last]} did not answer rank {owner.rank} within {timeout_s:g} s "
                "on the emulated link; retry in a new epoch without it"
            )
        owner.counters.bytes_received -= STAMP_BYTES * len(self._buffers)
        self._buffers = {}
