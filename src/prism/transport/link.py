"""The emulated link: its description as text, and the air time shared by processes.

Owns the arithmetic of bandwidth, delay and faults, without torch and without sockets, so that the
tensor transport and the control plane delay their frames by the same clocks. Times are seconds on
`time.monotonic()`, which on Linux is one clock for all processes of the machine.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import random
import re
import struct
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prism.errors import ConfigError

_BANDWIDTHS: Mapping[str, float] = {"gbit": 1e9, "mbit": 1e6, "kbit": 1e3, "bit": 1.0}
_TIMES: Mapping[str, float] = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?(?:e[+-]?\d+)?)([a-z]+)")
_FAULT = re.compile(r"(\d{1,12})(?:\+(.+))?")
_EXAMPLE = (
    'write for example "100mbit,3ms" or "100mbit,3ms,jitter=1ms,shared,drop=50,stall=50+2s", '
    'with kbit, mbit, gbit and us, ms, s; "none" leaves the link alone'
)
_LINK = struct.Struct("=ddd")  # bandwidth (inf = unlimited), latency, jitter
_CLOCK = struct.Struct("=d")


@dataclass(frozen=True, slots=True)
class LinkShape:
    """What an emulated link does to frames.

    Attributes:
        bandwidth_bps: rate of one node's uplink and of its downlink; None = unlimited.
        latency_s: one way.
        jitter_s: each frame takes up to this much longer, uniformly drawn.
        shared: all nodes take turns on one half-duplex medium, as at an access point.
        drop_after: a node's frames vanish once it has sent this many; None = never.
        stall_after: a node's frames come `stall_s` late once it has sent this many; None = never.
        stall_s: how long stalled frames are held back.
    """

    bandwidth_bps: float | None = None
    latency_s: float = 0.0
    jitter_s: float = 0.0
    shared: bool = False
    drop_after: int | None = None
    stall_after: int | None = None
    stall_s: float = 0.0

    def __post_init__(self) -> None:
        rate = self.bandwidth_bps
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"a link's bandwidth must be above 0 bit/s, not {rate}; {_EXAMPLE}")
        for name in ("latency_s", "jitter_s", "stall_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"a link's {name} must be 0 or more, not {value}; {_EXAMPLE}")
        for name in ("drop_after", "stall_after"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"a link's {name} must be 0 or more, not {value}; {_EXAMPLE}")
        if (self.stall_after is None) != (self.stall_s == 0):
            raise ConfigError(
                f"a stall needs both a count and a time, not {self.stall_after} and "
                f"{self.stall_s} s; {_EXAMPLE}"
            )

    def hold_s(self, sent: int) -> float:
        """Return how long the frame after `sent` earlier ones is held back; inf if it vanishes."""
        if self.drop_after is not None and sent >= self.drop_after:
            return math.inf
        if self.stall_after is not None and sent >= self.stall_after:
            return self.stall_s
        return 0.0

    def __str__(self) -> str:
        parts = []
        if self.bandwidth_bps is not None:
            parts.append(_quantity_text(self.bandwidth_bps, _BANDWIDTHS))
        if self.latency_s:
            parts.append(_quantity_text(self.latency_s, _TIMES))
        if self.jitter_s:
            parts.append(f"jitter={_quantity_text(self.jitter_s, _TIMES)}")
        if self.shared:
            parts.append("shared")
        if self.drop_after is not None:
            parts.append(f"drop={self.drop_after}")
        if self.stall_after is not None:
            parts.append(f"stall={self.stall_after}+{_quantity_text(self.stall_s, _TIMES)}")
        return ",".join(parts) or "none"

    @classmethod
    def parse(cls, text: str) -> LinkShape:
        """Read what `str(shape)` prints; "" and "none" mean no shaping.

        Raises:
            ConfigError: the text is no link; the message quotes it and gives an example.
        """
        words = text.strip().lower()
        values: dict[str, Any] = {}
        for word in [] if words in ("", "none") else words.split(","):
            for key, value in _read_word(text, word.strip()).items():
                if key in values:
                    raise ConfigError(f"link {text!r} gives {key} twice; {_EXAMPLE}")
                values[key] = value
        return cls(**values)


def _read_word(text: str, word: str) -> dict[str, Any]:
    name, equals, value = word.partition("=")
    if word == "shared":
        return {"shared": True}
    if name == "jitter" and equals:
        return {"jitter_s": _read_quantity(text, value, _TIMES)}
    fault = _FAULT.fullmatch(value)
    if name == "drop" and fault and not fault[2]:
        return {"drop_after": int(fault[1])}
    if name == "stall" and fault and fault[2]:
        held_s = _read_quantity(text, fault[2], _TIMES)
        return {"stall_after": int(fault[1]), "stall_s": held_s}
    match = _QUANTITY.fullmatch(word)
    if match and match[2] in _BANDWIDTHS:
        return {"bandwidth_bps": _read_quantity(text, word, _BANDWIDTHS)}
    return {"latency_s": _read_quantity(text, word, _TIMES)}


def _read_quantity(text: str, word: str, units: Mapping[str, float]) -> float:
    match = _QUANTITY.fullmatch(word)
    if not match or match[2] not in units:
        raise ConfigError(f"{word!r} in link {text!r} is not understood; {_EXAMPLE}")
    return float(match[1]) * units[match[2]]


def _quantity_text(value: float, units: Mapping[str, float]) -> str:
    """Return the text a person would write that reads back as exactly `value`."""
    texts = []
    for unit, factor in units.items():
        number = repr(value / factor).removesuffix(".0")
        if float(number) * factor == value:
            texts.append(number + unit)
    return min(texts, key=lambda text: (text.startswith("0."), len(text)))


@dataclass(frozen=True, slots=True)
class LinkTimes:
    """How long exchanges took over the real transport.

    Attributes:
        nodes: how many exchanged.
        sizes: payload bytes of one frame.
        together_s: by size, all nodes sending to all others at once.
        alone_s: by size, only the head sending.
        latency_s: one way, half of the smallest round trip.
    """

    nodes: int
    sizes: tuple[int, ...]
    together_s: tuple[float, ...]
    alone_s: tuple[float, ...]
    latency_s: float


class Medium:
    """Air time on one emulated medium, reserved by all processes that open the same file.

    The file holds the link's bandwidth, latency and jitter, which so can change for everybody at
    once, and the time until which each node's uplink and downlink is busy; a `shared` medium has
    one such clock for all. Whoever comes first creates it, and a process that dies leaves nothing
    to repair. The file must not outlive a reboot, which restarts the clock; keep it in a temporary
    directory.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        shape: LinkShape,
        nodes: int,
        rng: random.Random | None = None,
    ) -> None:
        """Open or create the clocks of `nodes` nodes at `path`.

        Args:
            path: the same file for every process on the medium.
            shape: what the link is like from the start; the one who creates the file decides.
            nodes: number of nodes on the medium.
            rng: source of the jitter.

        Raises:
            ConfigError: the file belongs to a medium with another number of nodes.
        """
        self._shared = shape.shared
        self._nodes = nodes
        self._rng = rng or random.Random()
        self._turn = threading.Lock()
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        length = _LINK.size + 2 * nodes * _CLOCK.size
        try:
            with self._exclusive():
                found = os.fstat(self._fd).st_size
                if found not in (0, length):
                    raise ConfigError(
                        f"{os.fspath(path)} is not a medium of {nodes} nodes ({found} bytes, "
                        f"{length} expected); use a new file for a new cluster"
                    )
                os.ftruncate(self._fd, length)
                self._file = mmap.mmap(self._fd, length)
                if not found:
                    self._write_link(shape)
        except BaseException:
            os.close(self._fd)
            raise

    def reshape(self, shape: LinkShape) -> None:
        """Change bandwidth, latency and jitter for every process; what is in the air stays."""
        with self._exclusive():
            self._write_link(shape)

    def _write_link(self, shape: LinkShape) -> None:
        rate = math.inf if shape.bandwidth_bps is None else shape.bandwidth_bps
        _LINK.pack_into(self._file, 0, rate, shape.latency_s, shape.jitter_s)

    def reserve(
        self, node_index: int, nbytes: int, now: float, receivers: Sequence[int] = ()
    ) -> float:
        """Return when a frame sent at `now` has arrived, and take the air time it needs.

        Copies to several receivers leave together and share the uplink fairly, as concurrent TCP
        streams do, so they all arrive with the last one. Receivers that are named also spend their
        downlink on it, which is how two senders to one receiver slow each other down.

        Args:
            node_index: the sender.
            nbytes: length of one copy.
            now: time of sending on `time.monotonic()`.
            receivers: who gets a copy; empty counts as one copy to somebody.
        """
        for index in (node_index, *receivers):
            if not 0 <= index < self._nodes:
                raise ConfigError(
                    f"node {index} is not on this medium of {self._nodes} nodes (0 to "
                    f"{self._nodes - 1}); open the medium for as many nodes as the cluster has"
                )
        with self._exclusive():
            rate, latency_s, jitter_s = _LINK.unpack_from(self._file, 0)
            done = now
            if math.isfinite(rate):
                done = self._occupy(node_index, nbytes * 8 / rate, now, receivers)
        return float(done + latency_s + self._rng.uniform(0.0, jitter_s))

    def _occupy(
        self, node_index: int, copy_s: float, now: float, receivers: Sequence[int]
    ) -> float:
        uplink = 0 if self._shared else node_index
        start = max(now, self._busy_until(uplink))
        done = start + copy_s * max(1, len(receivers))
        self._set_busy_until(uplink, done)
        if not self._shared:
            for receiver in receivers:
                downlink = self._nodes + receiver
                received = max(start, self._busy_until(downlink)) + copy_s
                self._set_busy_until(downlink, received)
                done = max(done, received)
        return done

    def _busy_until(self, clock: int) -> float:
        value: float = _CLOCK.unpack_from(self._file, _LINK.size + clock * _CLOCK.size)[0]
        return value

    def _set_busy_until(self, clock: int, value: float) -> None:
        _CLOCK.pack_into(self._file, _LINK.size + clock * _CLOCK.size, value)

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        # flock excludes other processes but not other threads that use the same descriptor.
        with self._turn:
            fcntl.flock(self._fd, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Release the file; other processes keep their view of it. Safe to call twice."""
        if not self._file.closed:
            self._file.close()
            os.close(self._fd)


def wait_until(moment_s: float) -> None:
    """Return at `moment_s` on `time.monotonic()`, when an emulated frame has arrived.

    No spinning for the last microseconds: the emulated nodes share this machine's cores.
    """
    while (left_s := moment_s - time.monotonic()) > 0:
        time.sleep(left_s)
