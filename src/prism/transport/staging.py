"""Payload tensors into frames and back, with as few copies as the device allows.

Owns the frames, reused for as long as the transport lives, the cast to the wire dtype, and the time
that copies between device and host take. On a CPU there is nothing to stage: the cast writes
straight into the frame, counts as compute, and `staging_s` stays 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Protocol

import torch

from prism.errors import ConfigError
from prism.plan import Wire

WIRE_DTYPES: Mapping[Wire, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


class Staging:
    """Frames for one device and one transport.

    A frame is the transport's header followed by the payload, row-major, in the wire dtype.
    """

    def __init__(self, device: torch.device | str, header_bytes: int) -> None:
        """Prepare for payloads on `device`.

        Args:
            device: where payloads live, a CPU or a CUDA device.
            header_bytes: of the transport; a multiple of 8, so that payloads are aligned.

        Raises:
            ConfigError: no staging exists for this kind of device.
        """
        assert header_bytes % 8 == 0
        self._header_bytes = header_bytes
        self._storage: dict[Hashable, torch.Tensor] = {}
        self._copies = _copies_for(torch.device(device))

    def frame_bytes(self, shape: Sequence[int], wire_dtype: torch.dtype) -> int:
        """Return the length of a frame with a payload of `shape`, header included."""
        return self._header_bytes + math.prod(shape) * wire_dtype.itemsize

    def frame(
        self, slot_key: Hashable, shape: Sequence[int], wire_dtype: torch.dtype
    ) -> torch.Tensor:
        """Return the uint8 frame of one slot, ready to be packed or received into.

        The same memory comes back for the same key, so a slot may be asked for again only when
        its last exchange is over: waited for, or its transport closed. Memory is allocated when a
        key is new or needs more than ever before, never in the steady state.

        Args:
            slot_key: names one use, for example `("from", peer, block % 2)`.
            shape: of the payload.
            wire_dtype: of the payload in the frame.
        """
        nbytes = self.frame_bytes(shape, wire_dtype)
        storage = self._storage.get(slot_key)
        if storage is None or storage.numel() < nbytes:
            storage = self._copies.allocate(nbytes)
            self._storage[slot_key] = storage
        self._copies.finish(storage)
        return storage[:nbytes]

    def pack(self, payload: torch.Tensor, wire_dtype: torch.dtype, frame: torch.Tensor) -> None:
        """Write `payload` behind the header; on return the frame may be sent."""
        self._copies.pack(payload, self._body(frame, wire_dtype, payload.shape))

    def unpack(self, frame: torch.Tensor, wire_dtype: torch.dtype, out: torch.Tensor) -> None:
        """Copy the payload of a received frame into `out`, a view of any strides and dtype.

        On CUDA the copy is in order with the current stream, and the frame stays busy until
        `Staging.frame` hands it out again.
        """
        self._copies.unpack(self._body(frame, wire_dtype, out.shape), out, frame)

    def _body(
        self, frame: torch.Tensor, wire_dtype: torch.dtype, shape: Sequence[int]
    ) -> torch.Tensor:
        return frame[self._header_bytes :].view(wire_dtype).view(tuple(shape))

    @property
    def staging_s(self) -> float:
        """Seconds of device-host copies since the last `reset`; waits for copies under way."""
        return self._copies.total_s()

    def reset(self) -> None:
        """Start counting `staging_s` from zero."""
        self._copies.reset()


class _Copies(Protocol):
    """How bytes get between payloads and frames on one kind of device."""

    def allocate(self, nbytes: int) -> torch.Tensor: ...
    def pack(self, payload: torch.Tensor, body: torch.Tensor) -> None: ...
    def unpack(self, body: torch.Tensor, out: torch.Tensor, frame: torch.Tensor) -> None: ...
    def finish(self, frame: torch.Tensor) -> None: ...
    def total_s(self) -> float: ...
    def reset(self) -> None: ...


def _copies_for(device: torch.device) -> _Copies:
    if device.type == "cpu":
        return _CpuCopies()
    if device.type == "cuda":
        return _CudaCopies(device)
    raise ConfigError(f"tensors on {str(device)!r} cannot be exchanged; use cpu or cuda")


class _CpuCopies:
    """Payload and frame share one memory: a single casting copy, nothing to wait for."""

    def allocate(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8)

    def pack(self, payload: torch.Tensor, body: torch.Tensor) -> None:
        body.copy_(payload)

    def unpack(self, body: torch.Tensor, out: torch.Tensor, frame: torch.Tensor) -> None:
        out.copy_(body)

    def finish(self, frame: torch.Tensor) -> None:
        pass

    def total_s(self) -> float:
        return 0.0

    def reset(self) -> None:
        pass


class _CudaCopies:
    """Pinned frames, copied on a side stream so that they overlap with compute."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._total_s = 0.0
        # By address of the frame: begin and end of the copy that still reads it.
        self._reading: dict[int, tuple[torch.cuda.Event, torch.cuda.Event]] = {}

    def allocate(self, nbytes: int) -> torch.Tensor:
        return torch.empty(nbytes, dtype=torch.uint8, pin_memory=True)

    def pack(self, payload: torch.Tensor, body: torch.Tensor) -> None:
        begun, ended = _timing_event(), _timing_event()
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream):
            begun.record(self._stream)
            # Cast on the device: fewer bytes cross to the host.
            wire = payload.to(body.dtype).contiguous()
            body.copy_(wire, non_blocking=True)
            ended.record(self._stream)
        # The caller may free the payload at once; its memory is still read here.
        payload.record_stream(self._stream)
        ended.synchronize()
        self._total_s += begun.elapsed_time(ended) / 1e3

    def unpack(self, body: torch.Tensor, out: torch.Tensor, frame: torch.Tensor) -> None:
        self.finish(frame)
        begun, ended = _timing_event(), _timing_event()
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            begun.record(self._stream)
            # A fresh tensor, so that the copy need not wait for what computes with `out`.
            wire = body.to(self._device, non_blocking=True)
            ended.record(self._stream)
        compute.wait_event(ended)
        wire.record_stream(compute)
        out.copy_(wire)
        self._reading[frame.data_ptr()] = (begun, ended)

    def finish(self, frame: torch.Tensor) -> None:
        copy = self._reading.pop(frame.data_ptr(), None)
        if copy is not None:
            begun, ended = copy
            ended.synchronize()
            self._total_s += begun.elapsed_time(ended) / 1e3

    def total_s(self) -> float:
        for begun, ended in self._reading.values():
            ended.synchronize()
            self._total_s += begun.elapsed_time(ended) / 1e3
        self._reading.clear()
        return self._total_s

    def reset(self) -> None:
        self.total_s()
        self._total_s = 0.0


def _timing_event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
