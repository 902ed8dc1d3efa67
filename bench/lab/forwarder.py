"""A process that reads what boards send and passes it on when its time has come.

The process is packets.c or packets.py; what is here starts it, speaks to it and ends it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bench.lab import namespaces
from bench.lab.packets import FRAMING
from bench.lab.shape import DEVICE, Board, Link, namespace_of

from prism.errors import ClusterError

C, PYTHON = "c", "python"
_COMPILERS = ("cc", "gcc", "clang")
_TUN = Path("/dev/net/tun")
_SOURCE = Path(__file__).parent / "packets.c"
_SCRIPT = Path(__file__).parent / "packets.py"
# Long, since a busy machine may keep it waiting; a forwarder that died is noticed at once.
_ANSWER_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 10.0
_NICE = -20
# Of TCP, what takes this long on the medium may be handed over at once.
_AT_ONCE_S = 1.25e-3
_MTU_BYTES, _LARGEST_BYTES = 1500, 65535
# Nobody's child, since it may outlive this process; with the standard input that it is given.
_ORPHAN = '{ sh -c "$0" sh "$@" <&3 3<&- & } 3<&0'
_SAY_ID = 'echo $$ && exec "$@"'


@dataclass(frozen=True, slots=True)
class Carried:
    """What a forwarder has done since it was started.

    Attributes:
        packets: delivered.
        bytes: of the delivered packets, without framing.
        lost: by chance, or at a link that was cut.
        dropped: their queue was full.
        late_s: sum of how much later than due packets were delivered.
        latest_s: the largest of these.
        cpu_s: processor time spent.
        offload: whether the boards' kernels now leave the segmenting of TCP to it.
    """

    packets: int
    bytes: int
    lost: int
    dropped: int
    late_s: float
    latest_s: float
    cpu_s: float
    offload: bool


class Forwarder:
    """A process that reads what boards send and passes it on when its time has come.

    Args:
        kind: `c` or `python`.
        lab: its name.
        boards: of the lab.
        directory: of the lab's files.
        watched: whether it ends with the process that starts it.
        offload: whether boards may hand over TCP unsegmented, as to a network card that does it.
    """

    def __init__(
        self,
        kind: str,
        lab: str,
        boards: Sequence[Board],
        directory: Path,
        *,
        watched: bool,
        offload: bool,
    ) -> None:
        self.kind = kind
        self._watched, self._offload = watched, offload
        self._lab, self._boards = lab, boards
        self._control = directory / "control"
        self._pid_file = directory / "forwarder.pid"
        self._lifeline: IO[str] | None = None

    def lay(self, link: Link) -> None:
        if not _TUN.exists():
            _TUN.parent.mkdir(exist_ok=True)
            os.mknod(_TUN, 0o600 | stat.S_IFCHR, os.makedev(10, 200))
        program = [sys.executable, "-I", "-S", str(_SCRIPT)]
        if self.kind == C:
            program = [str(compiled(self._control.parent.parent))]
        pid, said = self._spawn([*program, *self.arguments(link)])
        if said != "up":
            raise ClusterError(
                f"the lab's forwarder did not start ({said or 'it said nothing'}); where the "
                f"kernel has no tun devices, {namespaces.WAY_OUT}"
            )
        hasten(pid)
        for board in self._boards:
            namespaces.configure(namespace_of(self._lab, board.name), board)
        self.reshape(link, ())

    def _spawn(self, command: Sequence[str]) -> tuple[int, str]:
        """Start the process; return its id and the first line it says."""
        with subprocess.Popen(
            ["sh", "-c", _ORPHAN, _SAY_ID, *command],
            stdin=subprocess.PIPE if self._watched else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C is for the lab, which ends it in order
        ) as shell:
            self._lifeline, shell.stdin = shell.stdin, None
            assert shell.stdout is not None
            pid = shell.stdout.readline().strip()
            self._pid_file.write_text(pid)
            return int(pid), shell.stdout.readline().strip()

    def arguments(self, link: Link) -> list[str]:
        """Return the forwarder's command line, after its program."""
        paths = [namespaces.path_of(namespace_of(self._lab, board.name)) for board in self._boards]
        rate, delay, loss = _numbers(link)
        watched, shared = (str(int(each)) for each in (self._watched, link.shared))
        return [str(self._control), watched, rate, delay, loss, shared, *map(str, paths)]

    def reshape(self, link: Link, cut: Sequence[Board]) -> None:
        # Loss is of packets: where some are lost, each is carried by itself.
        offload = self._offload and not link.loss and self._limit_segments(segments_at_once(link))
        cut_bits = sum(1 << board.index for board in cut)
        self._ask(" ".join((*_numbers(link), str(cut_bits), str(int(offload)))))

    def _limit_segments(self, most: int) -> bool:
        """Limit how many segments of TCP boards hand over at once; return whether that worked."""
        device = ("link", "set", "dev", DEVICE, "gso_max_segs", str(most))
        try:
            for board in self._boards:
                within = namespace_of(self._lab, board.name)
                namespaces.ip(*device, within=within)
                # An open connection reads the limit only with its route.
                namespaces.ip("route", "flush", "cache", within=within)
        except ClusterError:  # an old iproute2
            return False
        return True

    def carried(self) -> Carried | None:
        packets, nbytes, lost, dropped, *times_ns, offload = map(int, self._ask("?").split())
        late_s, latest_s, cpu_s = (each / 1e9 for each in times_ns)
        counted = (packets, nbytes, lost, dropped)
        return Carried(*counted, late_s, latest_s, cpu_s, offload=bool(offload))

    def close(self) -> None:
        if self._pid_file.exists():
            end_forwarder(int(self._pid_file.read_text()), self._control)
            self._pid_file.unlink()
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None

    def _ask(self, text: str) -> str:
        """Send a message to the forwarder; return its answer.

        Raises:
            ClusterError: it is not there any more.
        """
        # A path, since other names of sockets end at the border of a namespace.
        own = self._control.with_name(f"ask-{os.getpid()}-{threading.get_ident()}")
        with contextlib.ExitStack() as leaving:
            asking = leaving.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            leaving.callback(own.unlink, missing_ok=True)
            try:
                watch = os.pidfd_open(int(self._pid_file.read_text()))
                leaving.callback(os.close, watch)
                asking.bind(str(own))
                asking.sendto(text.encode(), str(self._control))
                ready, _, _ = select.select((asking.fileno(), watch), (), (), _ANSWER_TIMEOUT_S)
                if asking.fileno() in ready:
                    return asking.recv(256).decode()
                reason = "it has ended" if ready else f"silent for {_ANSWER_TIMEOUT_S:g} s"
            except OSError as error:
                reason = str(error)
        raise ClusterError(
            f"the lab's forwarder does not answer ({reason}); take the lab down and up again"
        )


def segments_at_once(link: Link) -> int:
    """Return how many segments of TCP a board may hand over at once, 1 or more.

    They are delivered together, when the last has arrived, and nothing comes between them.
    """
    segment_bits = 8 * (_MTU_BYTES + FRAMING)
    fit = int(link.rate_bps * _AT_ONCE_S / segment_bits)
    return max(1, min(fit, _LARGEST_BYTES // _MTU_BYTES))


def hasten(pid: int) -> None:
    """Let a process run as soon as it has something to do, however busy its core is.

    A node that computes on the same core would else hold packets up for milliseconds.
    """
    try:
        os.sched_setscheduler(pid, os.SCHED_FIFO, os.sched_param(1))
    except OSError:  # not in this control group: first among the ordinary ones, then
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, pid, _NICE)


def compiler() -> str | None:
    """Return the path of a C compiler."""
    return next(filter(None, map(shutil.which, _COMPILERS)), None)


def compiled(directory: Path) -> Path:
    """Return the forwarder as a program; compiled once for each version of its source.

    Raises:
        ClusterError: the compiler failed; says why.
    """
    digest = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    program = directory / f"packets-{digest}"
    if not program.exists():
        # Under another name first: another lab may be starting, too.
        fresh = directory / f"packets-{os.getpid()}-{threading.get_ident()}"
        namespaces.command(compiler() or "cc", "-O2", "-o", str(fresh), str(_SOURCE))
        fresh.rename(program)
    return program


def end_forwarder(pid: int, control: Path) -> None:
    """End a forwarder, whoever started it, and wait until it is gone."""
    with contextlib.suppress(ProcessLookupError):
        watch = os.pidfd_open(pid)
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(control) in words:  # and not a stranger that was given its number
                signal.pidfd_send_signal(watch, signal.SIGKILL)
                select.select((watch,), (), (), _END_TIMEOUT_S)
        finally:
            os.close(watch)


def _numbers(link: Link) -> tuple[str, str, str]:
    """Return rate, delay and loss in the forwarder's units."""
    return f"{link.rate_bps:.0f}", f"{link.delay_s * 1e9:.0f}", f"{link.loss * 1e6:.0f}"
