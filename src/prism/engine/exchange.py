"""Tensors to peers and back: received early, sent as soon as they are there, collected late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prism.transport.base import Handle, Transport
from prism.transport.staging import Staging

Shape = tuple[int, int, int]  # batch, rows, width

# Exchanges whose frames may be in flight at once: with lag, the one that is waited for, the one
# just sent, and the one that is expected next.
_SLOTS = 3


@dataclass(frozen=True, slots=True)
class _Expected:
    """Frames that have not been taken over yet."""

    handle: Handle
    frames: Mapping[int, torch.Tensor]
    shapes: Mapping[int, Shape]


class Exchange:
    """The exchanges of one request, by key; sends payloads to peers and collects theirs.

    An exchange is expected before its time, so that its frames leave their senders without asking:
    a frame that nobody expects costs one more latency. Own frames are not waited for when the
    peers' are collected, nor at the end: each goes out while this node computes on, and is only
    waited for when its slot is filled again, here or by the next request. By then the peers have
    answered it, or are known to be lost. Right after a peer closed its connection they are not,
    and a frame that was just going out is one that Gloo never tells about (see `transport.gloo`).

    Args:
        transport: moves the frames.
        staging: turns tensors into frames and back.
        wire: dtype of values on the wire.
        timeout_s: longest wait for one exchange.
        keys: number of exchanges, the same on all ranks; keys are 0 up to, not including, it.

    Attributes:
        first_wait_s: how long the first frames that were collected were waited for.
    """

    def __init__(
        self,
        transport: Transport,
        staging: Staging,
        wire: torch.dtype,
        timeout_s: float,
        keys: int,
    ) -> None:
        self._transport = transport
        self._staging = staging
        self._wire = wire
        self._timeout_s = timeout_s
        self._first = transport.take_numbers(keys)
        self._expected: dict[int, _Expected] = {}
        self._leaving: dict[int, list[Handle]] = {}
        self._collected = False
        self._has_sent = False
        self.first_wait_s = 0.0

    def expect(self, key: int, shapes: Mapping[int, Shape]) -> None:
        """Start receiving `shapes[rank]` from each rank of it, to be collected later.

        At most three exchanges are expected at once, of keys that follow each other.

        Raises:
            PeerLost: a peer's connection is broken.
        """
        frames = {
            rank: self._staging.frame(("receive", key % _SLOTS, rank), shape, self._wire)
            for rank, shape in shapes.items()
        }
        handle = self._transport.receive(self._first + key, frames)
        self._expected[key] = _Expected(handle, frames, shapes)

    def send(self, key: int, payload: torch.Tensor, peers: Sequence[int]) -> None:
        """Start sending `payload` to `peers`; each peer gets at most one payload per key.

        Raises:
            PeerLost, DeadlineExceeded: a peer has not taken the last frame of this slot.
        """
        if not peers:
            return
        if not self._has_sent:
            self._has_sent = True
            self._transport.settle(self._timeout_s)
        for handle in self._leaving.pop(key - _SLOTS, ()):
            handle.wait(self._timeout_s)
        slot = ("send", key % _SLOTS, peers[0])
        frame = self._staging.frame(slot, tuple(payload.shape), self._wire)
        self._staging.pack(payload, self._wire, frame)
        handle = self._transport.send(self._first + key, frame, peers)
        self._leaving.setdefault(key, []).append(handle)

    def collect(self, key: int, like: torch.Tensor) -> torch.Tensor | None:
        """Wait for the exchange `key`; return the received rows joined along dim 1, by rank.

        Args:
            key: of an exchange that was expected.
            like: has the dtype and device that the rows shall have.

        Raises:
            PeerLost, DeadlineExceeded: as `Handle.wait`.
        """
        expected = self._expected.pop(key)
        waited_s = self._transport.counters.comm_s
        expected.handle.wait(self._timeout_s)
        if not expected.shapes:
            return None
        if not self._collected:
            self._collected = True
            self.first_wait_s = self._transport.counters.comm_s - waited_s
        sizes = [rows for _, rows, _ in expected.shapes.values()]
        batch, _, width = next(iter(expected.shapes.values()))
        out = torch.empty(batch, sum(sizes), width, dtype=like.dtype, device=like.device)
        start = 0
        for frame, size in zip(expected.frames.values(), sizes, strict=True):
            self._staging.unpack(frame, self._wire, out.narrow(1, start, size))
            start += size
        return out

    def finish(self) -> None:
        """Wait for everything still on its way here; own last frames go out meanwhile.

        Raises:
            PeerLost, DeadlineExceeded: as `Handle.wait`.
        """
        for expected in self._expected.values():
            expected.handle.wait(self._timeout_s)
        self._expected.clear()
