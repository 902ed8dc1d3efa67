"""Carries packets between the boards of a lab; packets.c in Python, where there is no compiler.

The arguments, the control socket and the answers are those described in packets.c. It uses the
standard library only, so that it starts at once.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import random
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

DEVICE = b"eth0"
AT_ONCE = 64  # packets read from one board before the others' turn
FRAMING = 38  # bytes of Ethernet around each packet, its gap included
LONGEST_QUEUE_NS = 100_000_000  # a packet that would wait longer is dropped, as by a switch
MOST_HELD = 64 << 20  # bytes that may be on their way to one board
_TODO = struct.Struct("=BBHHHH")  # struct virtio_net_hdr
_GSO_TCPV4 = 1
_LARGEST = 65536
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _TUNGETFEATURES, _TUNSETOFFLOAD = 0x400454CA, 0x800454CF, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_CHECKSUMS_AND_SEGMENTS = 0x01 | 0x02


@dataclass(frozen=True, slots=True)
class Frame:
    """What a kernel hands over and takes.

    Attributes:
        todo: how much of the kernel's work on it is left to be done, a `struct virtio_net_hdr`;
            nothing where the kernel's tun devices know of no such thing.
        ip: the packet; one of TCP may be larger than the medium takes.
    """

    todo: bytes
    ip: bytes

    def load(self) -> tuple[int, int]:
        """Return the packets that it is on the medium, and their bytes."""
        if not self.todo:
            return 1, len(self.ip)
        _, kind, _, size, _, _ = _TODO.unpack(self.todo)
        at = 4 * (self.ip[0] & 15)
        if kind != _GSO_TCPV4 or not size or at + 20 > len(self.ip):
            return 1, len(self.ip)
        # Segments that the kernel left unmade each have the headers of the whole.
        headers = at + 4 * (self.ip[at + 12] >> 4)
        packets = max(1, -(-(len(self.ip) - headers) // size))
        return packets, len(self.ip) + (packets - 1) * headers


@dataclass(slots=True)
class Counts:
    """What was done so far, in the order of an answer."""

    packets: int = 0
    bytes: int = 0
    lost: int = 0
    dropped: int = 0
    late_ns: int = 0
    latest_ns: int = 0


@dataclass(slots=True, eq=False)
class Port:
    """One board's end: what it sends and gets, and until when its two directions are taken."""

    tun: int
    cut: bool = False
    up_until: int = 0
    down_until: int = 0
    last_at: int = 0
    held: int = 0
    queue: deque[tuple[int, Frame]] = field(default_factory=deque)


class Medium:
    """Decides when a packet arrives, if it does; the arithmetic of packets.c.

    Args:
        ports: the boards' ends.
        rate_bps: as of `Link`.
        delay_ns: one way.
        loss_ppm: packets lost of a million.
        shared: one medium for all.
    """

    def __init__(
        self, ports: list[Port], rate_bps: float, delay_ns: int, loss_ppm: int, shared: bool
    ) -> None:
        self.ports = ports
        self.counts = Counts()
        self._rate_bps, self._delay_ns, self._loss_ppm = rate_bps, delay_ns, loss_ppm
        self._shared = shared
        self._air_until = 0
        self._chance = random.Random(1)

    def reshape(self, rate_bps: float, delay_ns: int, loss_ppm: int, cut: int) -> None:
        self._rate_bps, self._delay_ns, self._loss_ppm = rate_bps, delay_ns, loss_ppm
        for index, port in enumerate(self.ports):
            port.cut = bool(cut >> index & 1)

    def accept(self, source: Port, frame: Frame, now_ns: int) -> None:
        """Queue what a board sent for whom it is meant."""
        ip = frame.ip
        if len(ip) < 20 or ip[0] >> 4 != 4:  # IPv4 only
            return
        if ip[16] >= 224 or ip[19] == 255:
            targets = self.ports
        else:
            targets = self.ports[ip[19] - 1 : ip[19]] if ip[19] else []
        for target in targets:
            if target is not source:
                self._queue(source, target, frame, now_ns)

    def due(self, target: Port, now_ns: int) -> Frame | None:
        """Return what has arrived next at a board, if there is something."""
        while target.queue and target.queue[0][0] <= now_ns:
            at_ns, frame = target.queue.popleft()
            target.held -= len(frame.ip)
            packets, nbytes = frame.load()
            if target.cut:
                self.counts.lost += packets
                continue
            late_ns = now_ns - at_ns
            self.counts.packets += packets
            self.counts.bytes += nbytes
            self.counts.late_ns += late_ns * packets
            self.counts.latest_ns = max(self.counts.latest_ns, late_ns)
            return frame
        return None

    def soonest(self) -> int | None:
        """Return when the next packet arrives anywhere."""
        return min((port.queue[0][0] for port in self.ports if port.queue), default=None)

    def _queue(self, source: Port, target: Port, frame: Frame, now_ns: int) -> None:
        packets, nbytes = frame.load()
        unlucky = self._loss_ppm and self._chance.randrange(1_000_000) < self._loss_ppm
        if source.cut or target.cut or unlucky:
            self.counts.lost += packets
            return
        full = target.held > MOST_HELD
        left_ns = (
            None if full else self._take_turn(source, target, nbytes + packets * FRAMING, now_ns)
        )
        if left_ns is None:
            self.counts.dropped += packets
            return
        # A shorter delay than before overtakes nobody.
        target.last_at = max(left_ns + self._delay_ns, target.last_at)
        target.held += len(frame.ip)
        target.queue.append((target.last_at, frame))

    def _take_turn(self, source: Port, target: Port, nbytes: int, now_ns: int) -> int | None:
        """Return when the last bit has left the medium; None for a frame that is dropped."""
        takes_ns = int(nbytes * 8 / self._rate_bps * 1e9)
        if self._shared:
            if self._air_until - now_ns > LONGEST_QUEUE_NS:
                return None
            self._air_until = max(self._air_until, now_ns) + takes_ns
            return self._air_until
        if source.up_until - now_ns > LONGEST_QUEUE_NS:
            return None
        begun_ns = max(source.up_until, now_ns)
        source.up_until = begun_ns + takes_ns
        # The switch passes on what it has, so an idle downlink adds nothing.
        if target.down_until - begun_ns > LONGEST_QUEUE_NS:
            return None
        target.down_until = max(target.down_until, begun_ns) + takes_ns
        return target.down_until


class Tuns:
    """The boards' devices.

    Args:
        namespaces: of the boards, in order; a device is made in each.

    Raises:
        OSError: it could not be made; the path that failed is its `filename`.
    """

    def __init__(self, namespaces: list[str]) -> None:
        self.offload = False
        self.descriptors: list[int] = []
        with open("/proc/self/ns/net") as home:
            for name in namespaces:
                with open(name) as there:
                    _enter(there.fileno(), name)
                self.descriptors.append(self._make())
            _enter(home.fileno(), home.name)

    def _make(self) -> int:
        tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        features = int.from_bytes(fcntl.ioctl(tun, _TUNGETFEATURES, bytes(4)), sys.byteorder)
        flags = _IFF_TUN | _IFF_NO_PI | (features & _IFF_VNET_HDR)
        fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", DEVICE, flags))
        self._todo_bytes = _TODO.size if features & _IFF_VNET_HDR else 0
        return tun

    def set_offload(self, on: bool) -> None:
        """Let the boards' kernels leave checksums and segments undone; off if one refuses."""
        self.offload = on and bool(self._todo_bytes)
        for tun in self.descriptors if self._todo_bytes else ():
            try:
                fcntl.ioctl(tun, _TUNSETOFFLOAD, _CHECKSUMS_AND_SEGMENTS if on else 0)
            except OSError:
                self.offload = False

    def take(self, tun: int) -> Frame:
        """Return what a board sent next.

        Raises:
            BlockingIOError: there is nothing.
        """
        whole = os.read(tun, _TODO.size + _LARGEST)
        return Frame(whole[: self._todo_bytes], whole[self._todo_bytes :])


def answer(medium: Medium, tuns: Tuns, control: socket.socket) -> None:
    """Obey a message, and say what was done so far."""
    text, sender = control.recvfrom(256)
    words = text.split()
    if len(words) == 5:
        rate_bps, *others, offload = words
        medium.reshape(float(rate_bps), *map(int, others))
        if (offload == b"1") != tuns.offload:
            tuns.set_offload(offload == b"1")
    used = resource.getrusage(resource.RUSAGE_SELF)
    each = medium.counts
    numbers = (each.packets, each.bytes, each.lost, each.dropped, each.late_ns, each.latest_ns)
    cpu_ns = int((used.ru_utime + used.ru_stime) * 1e9)
    with contextlib.suppress(OSError):  # who asked is gone
        words_back = map(str, (*numbers, cpu_ns, int(tuns.offload)))
        control.sendto(" ".join(words_back).encode(), sender)


def forward(medium: Medium, tuns: Tuns, control: socket.socket, watch: bool) -> None:
    """Carry packets until standard input ends, or for ever."""
    by_tun = {port.tun: port for port in medium.ports}
    sources = [control.fileno(), *by_tun, *([0] if watch else [])]
    while True:
        soonest = medium.soonest()
        wait_s = None if soonest is None else max(0.0, (soonest - time.monotonic_ns()) / 1e9)
        ready, _, _ = select.select(sources, (), (), wait_s)
        if 0 in ready and not os.read(0, 64):
            return
        if control.fileno() in ready:
            answer(medium, tuns, control)
        for tun in by_tun.keys() & ready:
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    medium.accept(by_tun[tun], tuns.take(tun), time.monotonic_ns())
        for port in medium.ports:
            while (frame := medium.due(port, time.monotonic_ns())) is not None:
                try:
                    os.writev(port.tun, (frame.todo, frame.ip))
                except OSError:
                    medium.counts.lost += frame.load()[0]


def _enter(descriptor: int, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)


def main(arguments: list[str]) -> int:
    path, watch, rate_bps, delay_ns, loss_ppm, shared, *namespaces = arguments
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        control.bind(path)
        tuns = Tuns(namespaces)
    except OSError as error:
        print(f"{error.filename or path}: {error.strerror}", file=sys.stderr)
        return 1
    ports = [Port(tun) for tun in tuns.descriptors]
    medium = Medium(ports, float(rate_bps), int(delay_ns), int(loss_ppm), shared == "1")
    print("up", flush=True)
    forward(medium, tuns, control, watch == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
