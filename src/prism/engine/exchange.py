"""Tensors to peers and back: one exchange per block, posted early and collected late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from prism.transport.base import Handle, Transport
from prism.transport.staging import Staging

Shape = tuple[int, int, int]  # batch, rows, width

# Exchanges whose frames may be in flight at once: with lag, the one being waited for and the one
# just posted; one more so that a slow peer may still be reading while the next frame is filled.
_SLOTS = 3


@dataclass(frozen=True, slots=True)
class _Pending:
    """An exchange whose frames have not been taken over yet."""

    handle: Handle
    frames: Mapping[int, torch.Tensor]
    shapes: Mapping[int, Shape]
    like: torch.Tensor


class Exchange:
    """Posts one payload to several peers and collects theirs.

    Own frames are not waited for when the peers' are collected: each goes out while this node
    computes on, and is only waited for when its slot is filled again, or at the end.

    Args:
        transport: moves the frames.
        staging: turns tensors into frames and back.
        wire: dtype of values on the wire.
        timeout_s: longest wait for one exchange.

    Attributes:
        first_wait_s: how long the first frames that were collected were waited for.
    """

    def __init__(
        self, transport: Transport, staging: Staging, wire: torch.dtype, timeout_s: float
    ) -> None:
        self._transport = transport
        self._staging = staging
        self._wire = wire
        self._timeout_s = timeout_s
        self._pending: dict[int, _Pending] = {}
        self._sending: dict[int, Handle] = {}  # by slot
        self._collected = False
        self.first_wait_s = 0.0

    def post(
        self,
        key: int,
        payload: torch.Tensor,
        send_to: Sequence[int],
        shapes: Mapping[int, Shape],
    ) -> None:
        """Start sending `payload` to `send_to`, and receiving `shapes[rank]` from each rank of it.

        What is received takes the dtype and device of `payload`. Keys follow each other.

        Raises:
            PeerLost, DeadlineExceeded: a peer has not taken the last frame of this slot.
        """
        slot = key % _SLOTS
        if slot in self._sending:
            self._sending.pop(slot).wait_sent(self._timeout_s)
        frame = torch.empty(0, dtype=torch.uint8)
        if send_to:
            frame = self._staging.frame(("send", slot), tuple(payload.shape), self._wire)
            self._staging.pack(payload, self._wire, frame)
        frames = {
            rank: self._staging.frame(("receive", slot, rank), shape, self._wire)
            for rank, shape in shapes.items()
        }
        handle = self._transport.post(frame, send_to, frames)
        self._pending[key] = _Pending(handle, frames, shapes, payload)
        self._sending[slot] = handle

    def collect(self, key: int) -> torch.Tensor | None:
        """Wait for the exchange `key`; return the received rows joined along dim 1, by rank.

        Raises:
            PeerLost, DeadlineExceeded: as `Handle.wait`.
        """
        pending = self._pending.pop(key)
        waited_s = self._transport.counters.comm_s
        pending.handle.wait(self._timeout_s)
        if not pending.shapes:
            return None
        if not self._collected:
            self._collected = True
            self.first_wait_s = self._transport.counters.comm_s - waited_s
        sizes = [rows for _, rows, _ in pending.shapes.values()]
        batch, _, width = next(iter(pending.shapes.values()))
        like = pending.like
        out = torch.empty(batch, sum(sizes), width, dtype=like.dtype, device=like.device)
        start = 0
        for frame, size in zip(pending.frames.values(), sizes, strict=True):
            self._staging.unpack(frame, self._wire, out.narrow(1, start, size))
            start += size
        return out

    def finish(self) -> None:
        """Wait for everything still under way, in both directions.

        Raises:
            PeerLost, DeadlineExceeded: as `Handle.wait`.
        """
        for pending in self._pending.values():
            pending.handle.wait(self._timeout_s)
        self._pending.clear()
        for handle in self._sending.values():
            handle.wait_sent(self._timeout_s)
        self._sending.clear()
