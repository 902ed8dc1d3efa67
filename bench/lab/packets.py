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
_MTU = 1600
_CLONE_NEWNET = 0x40000000
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000


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
    queue: deque[tuple[int, bytes]] = field(default_factory=deque)


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

    def accept(self, source: Port, packet: bytes, now_ns: int) -> None:
        """Queue a packet that a board sent for whom it is meant."""
        if len(packet) < 20 or packet[0] >> 4 != 4:  # IPv4 only
            return
        if packet[16] >= 224 or packet[19] == 255:
            targets = self.ports
        else:
            targets = self.ports[packet[19] - 1 : packet[19]] if packet[19] else []
        for target in targets:
            if target is not source:
                self._queue(source, target, packet, now_ns)

    def due(self, target: Port, now_ns: int) -> bytes | None:
        """Return the next packet that has arrived at a board, if there is one."""
        while target.queue and target.queue[0][0] <= now_ns:
            at_ns, packet = target.queue.popleft()
            if target.cut:
                self.counts.lost += 1
                continue
            late_ns = now_ns - at_ns
            self.counts.packets += 1
            self.counts.bytes += len(packet)
            self.counts.late_ns += late_ns
            self.counts.latest_ns = max(self.counts.latest_ns, late_ns)
            return packet
        return None

    def soonest(self) -> int | None:
        """Return when the next packet arrives anywhere."""
        return min((port.queue[0][0] for port in self.ports if port.queue), default=None)

    def _queue(self, source: Port, target: Port, packet: bytes, now_ns: int) -> None:
        unlucky = self._loss_ppm and self._chance.randrange(1_000_000) < self._loss_ppm
        if source.cut or target.cut or unlucky:
            self.counts.lost += 1
            return
        left_ns = self._take_turn(source, target, len(packet), now_ns)
        if left_ns is None:
            self.counts.dropped += 1
            return
        # A shorter delay than before overtakes nobody.
        target.last_at = max(left_ns + self._delay_ns, target.last_at)
        target.queue.append((target.last_at, packet))

    def _take_turn(self, source: Port, target: Port, nbytes: int, now_ns: int) -> int | None:
        """Return when the last bit has left the medium; None for a packet that is dropped."""
        takes_ns = int((nbytes + FRAMING) * 8 / self._rate_bps * 1e9)
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


def answer(medium: Medium, control: socket.socket) -> None:
    """Obey a message, and say what was done so far."""
    text, sender = control.recvfrom(256)
    words = text.split()
    if len(words) == 4:
        medium.reshape(float(words[0]), *map(int, words[1:]))
    used = resource.getrusage(resource.RUSAGE_SELF)
    each = medium.counts
    numbers = (each.packets, each.bytes, each.lost, each.dropped, each.late_ns, each.latest_ns)
    cpu_ns = int((used.ru_utime + used.ru_stime) * 1e9)
    with contextlib.suppress(OSError):  # who asked is gone
        control.sendto(" ".join(map(str, (*numbers, cpu_ns))).encode(), sender)


def forward(medium: Medium, control: socket.socket, watch: bool) -> None:
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
            answer(medium, control)
        for tun in by_tun.keys() & ready:
            with contextlib.suppress(BlockingIOError):
                for _ in range(AT_ONCE):
                    medium.accept(by_tun[tun], os.read(tun, _MTU), time.monotonic_ns())
        for port in medium.ports:
            while (packet := medium.due(port, time.monotonic_ns())) is not None:
                try:
                    os.write(port.tun, packet)
                except OSError:
                    medium.counts.lost += 1


def open_tuns(namespaces: list[str]) -> list[int]:
    """Make the device in every namespace; the process comes back to its own."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(descriptor: int, name: str) -> None:
        if libc.setns(descriptor, _CLONE_NEWNET):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)

    tuns = []
    with open("/proc/self/ns/net") as home:
        for name in namespaces:
            with open(name) as there:
                enter(there.fileno(), name)
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(tun, _TUNSETIFF, struct.pack("16sH22x", DEVICE, _IFF_TUN | _IFF_NO_PI))
            tuns.append(tun)
        enter(home.fileno(), home.name)
    return tuns


def main(arguments: list[str]) -> int:
    path, watch, rate_bps, delay_ns, loss_ppm, shared, *namespaces = arguments
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        control.bind(path)
        ports = [Port(tun) for tun in open_tuns(namespaces)]
    except OSError as error:
        print(f"{error.filename or path}: {error.strerror}", file=sys.stderr)
        return 1
    medium = Medium(ports, float(rate_bps), int(delay_ns), int(loss_ppm), shared == "1")
    print("up", flush=True)
    forward(medium, control, watch == "1")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
